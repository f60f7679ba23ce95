"""Audit rows: written, sealed, forgotten, and changed as whoever owns the database can."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection, text, update

from identity import audit
from identity.audit import AsWhom
from identity.audit.chain import link_digest, row_digest
from identity.audit.links import newest_checkpoint, sealed_rows
from identity.audit.pruning import prune_audit
from identity.audit.sealer import Sealer
from identity.audit.tables import audit as rows
from identity.audit.tables import audit_seals
from identity.keys.signing import Signer
from identity.keys.trusted_keys import TrustedKeys
from tests.identity.world import START, World

SIGNER = Signer.from_seed(os.urandom(32))
KEYS = TrustedKeys(SIGNER.public_key())
DAY = timedelta(days=1)
T = TypeVar("T")


class Within:
    """A ledger that is read in one transaction, with what was written in it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, fn: Callable[[Connection], T]) -> T:
        return fn(self._connection)

    write = read


def write(world: World, *names: str, tenant: str = "acme", at: datetime = START) -> None:
    def record(connection: Connection) -> None:
        for name in names:
            detail = {"n": [1, "é"], "a": {"z": None, "b": True}}
            audit.record(
                connection, "step.done", AsWhom(tenant=tenant, principal="anna"), id=name, at=at, detail=detail
            )

    world.store.write(record)


def seal(world: World, *names: str, at: datetime = START, tenant: str = "acme") -> None:
    """One batch of these rows: one signature, on its last."""
    write(world, *names, tenant=tenant, at=at)
    assert Sealer(world.store, SIGNER).seal(now=at) == len(names)


@contextmanager
def as_owner(connection: Connection) -> Iterator[None]:
    """Without the triggers, as somebody who owns the database can be."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("set session_replication_role = replica"))
        yield
        connection.execute(text("set session_replication_role = origin"))
        return
    triggers = "select name, sql from sqlite_master where type = 'trigger' and tbl_name like 'audit%'"
    dropped = connection.execute(text(triggers)).all()
    for name, _ in dropped:
        connection.execute(text(f"drop trigger {name}"))
    yield
    for _, made in dropped:
        connection.execute(text(made))


def kept(world: World) -> str:
    """A checkpoint, as it is kept elsewhere."""
    head = world.store.read(newest_checkpoint)
    assert head is not None
    return head.line()


def restamp(connection: Connection) -> None:
    """Make the digests of the chain fit its rows again, as far as one can without the key."""
    before = "0" * 64
    for link, row in list(sealed_rows(connection)):
        if row is not None:
            before = link_digest(before, link.seq, row_digest(row))
            connection.execute(update(audit_seals).where(audit_seals.c.seq == link.seq).values(digest=before))
        else:
            before = link.digest


def edit(connection: Connection, name: str) -> None:
    connection.execute(update(rows).where(rows.c.id == name).values(principal_id="mallory"))


def prune(world: World, *, days: int) -> int:
    """Forget what is older than so many days after the start."""
    before = START + days * DAY
    return world.store.write(lambda c: prune_audit(c, before=before, limit=100, signer=SIGNER, now=before))
