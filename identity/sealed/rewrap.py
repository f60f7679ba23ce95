"""Rewrapping of the ledger's sealed values under the newest vault key, in chunks; and which keys are still needed.

Rewrapping changes the wrap of a data key, never the ciphertext, so it needs neither the value nor its binding. The rows
themselves hold the progress: current ones are skipped, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Column, Connection, LargeBinary, Table, cast, func, literal, select, update

from identity.capability.tables import keys as capability_keys
from identity.connect_sessions.tables import connect_sessions
from identity.keys.vault import HEAD, Vault, key_of
from identity.refresh.tables import refresh_intents
from identity.sql.store import Store
from identity.tables import connection_secrets, grants
from identity.withdrawals.tables import withdrawals

CHUNK = 200  # rows in one transaction


@dataclass(frozen=True, kw_only=True)
class Field:
    """A column of sealed values."""

    table: Table
    name: str

    @property
    def column(self) -> Column[bytes]:
        return self.table.c[self.name]

    @property
    def key(self) -> Column[str]:
        (key,) = self.table.primary_key.columns
        return key

    def __str__(self) -> str:
        return f"{self.table.name}.{self.name}"


#: Every column that holds a sealed value; tests/identity/test_rewrap.py compares them with the tables.
SEALED = (
    Field(table=grants, name="access_sealed"),
    Field(table=grants, name="refresh_sealed"),
    Field(table=connection_secrets, name="sealed"),
    Field(table=refresh_intents, name="answer_sealed"),
    Field(table=connect_sessions, name="verifier_sealed"),
    Field(table=withdrawals, name="access_sealed"),
    Field(table=withdrawals, name="refresh_sealed"),
    Field(table=withdrawals, name="answer_sealed"),
    Field(table=capability_keys, name="private_sealed"),
)


def in_use(connection: Connection) -> dict[Field, Counter[int]]:
    """Return how many values of each column each vault key wraps, by its id. O(all)."""
    found: dict[Field, Counter[int]] = {}
    for field in SEALED:
        head = func.substr(field.column, 1, HEAD, type_=LargeBinary)
        counted = select(head, func.count()).where(field.column.is_not(None)).group_by(head)
        found[field] = Counter({key_of(bytes(start)): number for start, number in connection.execute(counted)})
    return found


def rewrap(store: Store, vault: Vault, *, progress: Callable[[Field, int], None]) -> int:
    """Rewrap everything under the vault's newest key; return how many values moved.

    *progress* is called for each chunk. Safe beside running processes: a value that was replaced meanwhile is left as
    it is. Raises Misconfigured for a value whose key is missing; chunks already done stay done.
    """
    total = 0
    for field in SEALED:
        for moved in _chunks(store, vault, field):
            total += moved
            progress(field, moved)
    return total


def _chunks(store: Store, vault: Vault, field: Field) -> Iterator[int]:
    after = ""
    while rows := store.read(partial(_outdated, vault=vault, field=field, after=after)):
        fresh = [(key, bytes(old), vault.rewrap(bytes(old))) for key, old in rows]
        yield store.write(partial(_replace, field=field, fresh=fresh))
        after = rows[-1][0]


def _outdated(connection: Connection, vault: Vault, field: Field, *, after: str) -> list[tuple[str, bytes]]:
    """Return the next rows, in key order, that are wrapped by another key than the newest."""
    head = func.substr(field.column, 1, HEAD, type_=LargeBinary)
    current = cast(literal(vault.head, LargeBinary), LargeBinary)
    found = select(field.key, field.column).where(field.key > after, field.column.is_not(None), head != current)
    return [(key, sealed) for key, sealed in connection.execute(found.order_by(field.key).limit(CHUNK))]


def _replace(connection: Connection, field: Field, fresh: list[tuple[str, bytes, bytes]]) -> int:
    moved = 0
    for key, old, new in fresh:
        same = update(field.table).where(field.key == key, field.column == old)
        moved += connection.execute(same.values({field.name: new})).rowcount
    return moved
