"""The ledger sequence and the locks of the five scopes (docs/decisions/0003).

Numbers are taken under the locks, so they order openings and revocations: "before" and "after" refer to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from hashlib import blake2b
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, Sequence, bindparam, func, literal_column, select, update

from identity.errors import Unavailable
from identity.model import LOCK_ORDER, Scope
from identity.sql.columns import database_now
from identity.sql.metadata import ledger_numbers, metadata
from identity.sql.prepared import Prepared

NUMBERS = Sequence("ledger_number_sequence", metadata=metadata)

_NOW = database_now().label("now")
_NEXT_OF_SEQUENCE = Prepared(select(NUMBERS.next_value()))
_NEXT_OF_ROW = Prepared(
    update(ledger_numbers).values(value=ledger_numbers.c.value + 1).returning(ledger_numbers.c.value)
)
_NEXT_OF_SEQUENCE_AND_TIME = Prepared(_NEXT_OF_SEQUENCE.statement.add_columns(_NOW))
_NEXT_OF_ROW_AND_TIME = Prepared(_NEXT_OF_ROW.statement.returning(_NOW))


def next_number(connection: Connection) -> int:
    """Return the next ledger number; gaps are allowed."""
    statement = _NEXT_OF_SEQUENCE if connection.dialect.name == "postgresql" else _NEXT_OF_ROW
    return int(statement.run(connection).scalar_one())


def next_number_and_time(connection: Connection) -> tuple[int, datetime]:
    """Return the next ledger number, and the database's clock when it was taken."""
    on_postgresql = connection.dialect.name == "postgresql"
    row = (_NEXT_OF_SEQUENCE_AND_TIME if on_postgresql else _NEXT_OF_ROW_AND_TIME).run(connection).one()
    return int(row[0]), row.now


def _advisory_key(scope: Scope) -> int:
    digest = blake2b(f"{scope.kind}\x00{scope.key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def lock_shared(connection: Connection, scopes: Iterable[Scope]) -> None:
    """Block revocations of these scopes until the transaction ends. A statement of its own, never part of a read."""
    if connection.dialect.name != "postgresql":
        return  # SQLite has one writer
    ordered = sorted(scopes, key=lambda scope: (LOCK_ORDER.index(scope.kind), scope.key))
    keys = {f"key_{place}": _advisory_key(scope) for place, scope in enumerate(ordered)}
    _shared_locks(len(keys)).run(connection, keys)


@cache
def _shared_locks(number: int) -> Prepared:
    """Build the statement that takes the locks in order: a select list is evaluated left to right."""
    keys = (bindparam(f"key_{place}", type_=BigInteger) for place in range(number))
    return Prepared(select(*(func.pg_advisory_xact_lock_shared(key) for key in keys)))


# Longer than a process stopped inside an opening can hold it: idle_in_transaction_session_timeout is 2 s. A select list
# is evaluated left to right, so the same statement sets it before waiting.
_EXCLUSIVE = select(
    literal_column("set_config('lock_timeout', '5s', true)"),
    func.pg_advisory_xact_lock(bindparam("key", type_=BigInteger)),
)
_EXCLUSIVE_LOCK = Prepared(_EXCLUSIVE)
# The end of an index. Read from the snapshot, so it is older than nextval.
_NEWEST = literal_column("(select max(number) from audit)", BigInteger).label("newest")
_CHECKED = (_NEWEST, NUMBERS.next_value().label("number"))
_CHECKED_NUMBER = Prepared(select(*_CHECKED))
_EXCLUSIVE_LOCK_NUMBER_AND_TIME = Prepared(_EXCLUSIVE.add_columns(*_CHECKED, _NOW))  # not the transaction's start


def lock_exclusive(connection: Connection, scope: Scope) -> None:
    """Wait for every opening under this scope, and block new ones until the transaction ends."""
    if connection.dialect.name == "postgresql":
        _EXCLUSIVE_LOCK.run(connection, {"key": _advisory_key(scope)})


def lock_exclusive_number_and_time(connection: Connection, scope: Scope) -> tuple[int, datetime]:
    """Lock as `lock_exclusive` does; return the next ledger number and the database's clock, in one round trip.

    Neither comes from a snapshot. Raises Unavailable if the sequence is behind the rows, as after a failover under a
    running process: a revocation with such a number would count as earlier than what it must end.
    """
    if connection.dialect.name != "postgresql":  # no failover replaces SQLite's ledger under a running process
        return next_number_and_time(connection)
    row = _EXCLUSIVE_LOCK_NUMBER_AND_TIME.run(connection, {"key": _advisory_key(scope)}).one()
    return _checked(row), row.now


def checked_number(connection: Connection) -> int:
    """Return the next ledger number. Raises Unavailable as `lock_exclusive_number_and_time` does."""
    if connection.dialect.name != "postgresql":
        return next_number(connection)
    return _checked(_CHECKED_NUMBER.run(connection).one())


def _checked(row: Row[Any]) -> int:
    number = int(row.number)
    if row.newest is not None and number <= row.newest:
        raise Unavailable(
            f"the ledger's numbers are at {number}, and its rows have them up to {row.newest}: a revocation would end "
            "nothing. `aswhom doctor` says what to do"
        )
    return number
