"""The audit: rows with ledger numbers, and a chain in which every tampering is found."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, delete, update

from identity import audit
from identity.audit_chain import FirstBad, Sealer, Verified, read_checkpoint, verify
from identity.audit_tables import audit as rows
from identity.audit_tables import audit_seals
from identity.errors import BadInput
from tests.identity.world import START, World

KEY = os.urandom(32)
SIGNING = Ed25519PrivateKey.generate()


def write(world: World, *names: str) -> None:
    def record(connection: Connection) -> None:
        for name in names:
            audit.record(
                connection, id=name, at=START, kind="step.done", tenant="acme", principal="anna", detail={"n": [1, "é"]}
            )

    world.store.write(record)


@pytest.fixture
def sealed(world: World) -> World:
    write(world, *"abcde")
    assert Sealer(world.store, KEY).seal(now=START) == 5
    return world


def check(world: World, checkpoint: str | None = None, key: bytes = KEY) -> Verified | FirstBad:
    read = read_checkpoint(checkpoint, SIGNING.public_key()) if checkpoint else None
    return world.store.read(lambda connection: verify(connection, key, checkpoint=read))


def test_an_untouched_chain_holds(sealed: World) -> None:
    write(sealed, "late")
    outcome = check(sealed)
    assert isinstance(outcome, Verified)
    assert (outcome.count, outcome.unsealed) == (5, 1)


def test_sealing_goes_on_where_it_stopped(sealed: World) -> None:
    sealer = Sealer(sealed.store, KEY)
    assert sealer.seal(now=START) == 0
    write(sealed, *"fgh")
    assert [sealer.seal(now=START, limit=2), sealer.seal(now=START, limit=2)] == [2, 1]
    outcome = check(sealed)
    assert isinstance(outcome, Verified)
    assert (outcome.count, outcome.unsealed) == (8, 0)


def test_a_row_whose_lower_number_appears_late_is_sealed_too(sealed: World) -> None:
    number = sealed.number()
    write(sealed, "f")
    sealer = Sealer(sealed.store, KEY)
    sealer.seal(now=START)
    sealed.store.write(
        lambda connection: audit.record(connection, id="slow", at=START, kind="step.done", tenant="acme", number=number)
    )
    assert sealer.seal(now=START) == 1
    assert isinstance(check(sealed), Verified)


def edit(connection: Connection) -> None:
    connection.execute(update(rows).where(rows.c.id == "c").values(principal_id="mallory"))


def edit_detail(connection: Connection) -> None:
    connection.execute(update(rows).where(rows.c.id == "c").values(detail={"n": [2, "é"]}))


def delete_row(connection: Connection) -> None:
    connection.execute(delete(rows).where(rows.c.id == "c"))


def delete_seal(connection: Connection) -> None:
    connection.execute(delete(audit_seals).where(audit_seals.c.audit_id == "c"))


def swap(connection: Connection) -> None:
    for old, new in (("c", "x"), ("d", "c"), ("x", "d")):
        connection.execute(update(audit_seals).where(audit_seals.c.audit_id == old).values(audit_id=new))


def restamp(connection: Connection) -> None:
    connection.execute(update(audit_seals).where(audit_seals.c.audit_id == "c").values(mac="0" * 64))


@pytest.mark.parametrize("tamper", [edit, edit_detail, delete_row, delete_seal, swap, restamp])
def test_tampering_is_found_at_its_first_row(sealed: World, tamper: Callable[[Connection], None]) -> None:
    sealed.store.write(tamper)
    outcome = check(sealed)
    assert isinstance(outcome, FirstBad)
    assert outcome.seq == 3


def cut(connection: Connection) -> None:
    connection.execute(delete(audit_seals).where(audit_seals.c.seq > 3))
    connection.execute(delete(rows).where(rows.c.id.in_(["d", "e"])))


def test_a_chain_cut_at_its_end_is_found_by_a_checkpoint(sealed: World) -> None:
    checkpoint = Sealer(sealed.store, KEY).checkpoint(SIGNING, now=START)
    assert isinstance(check(sealed, checkpoint), Verified)
    sealed.store.write(cut)
    assert isinstance(check(sealed), Verified)  # which is why checkpoints are kept elsewhere
    outcome = check(sealed, checkpoint)
    assert isinstance(outcome, FirstBad)
    assert (outcome.seq, "cut" in outcome.why) == (4, True)


def test_a_chain_cut_and_continued_is_found_by_a_checkpoint(sealed: World) -> None:
    sealer = Sealer(sealed.store, KEY)
    checkpoint = sealer.checkpoint(SIGNING, now=START)
    sealed.store.write(cut)
    write(sealed, "forged-1", "forged-2", "forged-3")
    sealer.seal(now=START)
    outcome = check(sealed, checkpoint)
    assert isinstance(outcome, FirstBad)
    assert outcome.seq == 5


def test_another_key_verifies_nothing(sealed: World) -> None:
    outcome = check(sealed, key=os.urandom(32))
    assert isinstance(outcome, FirstBad)
    assert outcome.seq == 1


def test_two_sealers_make_one_chain(sealed: World) -> None:
    write(sealed, "f")
    one, two = Sealer(sealed.store, KEY), Sealer(sealed.store, KEY)
    assert one.seal(now=START) + two.seal(now=START) == 1
    assert isinstance(check(sealed), Verified)


@pytest.mark.parametrize(
    "change", [lambda text: text.replace('"seq": 5', '"seq": 4'), lambda text: "{", lambda text: "[]"]
)
def test_an_altered_checkpoint_is_none(sealed: World, change: Callable[[str], str]) -> None:
    checkpoint = Sealer(sealed.store, KEY).checkpoint(SIGNING, now=START)
    with pytest.raises(BadInput, match="not a checkpoint"):
        read_checkpoint(change(checkpoint), SIGNING.public_key())
