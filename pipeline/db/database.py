"""The ledger database behind a single seam for writes.

`open_database` returns a `Database` for an SQLAlchemy URL: SQLite for one machine, PostgreSQL for many hosts. A
transaction is a function passed to `write`, so none can be open across HTTP and any can be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine, make_url

from identity.errors import Misconfigured, Unavailable

T = TypeVar("T")


class Database(Protocol):
    """A ledger database; see `identity.sql.store.Store` for the guarantees of `write` and `read`."""

    engine: Engine

    def write(self, fn: Callable[[Connection], T], *, until: float | None = None, ahead: bool = False) -> T:
        """Write *fn*'s transaction.

        *until* is a time of `time.monotonic()`: if *fn* returns later, nothing is written and the caller is told so,
        also while it waits for its turn. In a group commit on SQLite, the COMMIT follows the group's other functions.
        *ahead* goes before everything waiting for its turn in this process, and on SQLite in other processes.
        """
        ...

    def read(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
        """Run *fn* in a read transaction.

        *ahead*, on PostgreSQL, waits for no ordinary read or write; one connection is left to such reads.
        """
        ...

    def check_fit(self) -> None:
        """Return if there is disk space for writes and no damage has been seen, as far as this process knows.

        Raises Unavailable; after any damage raises LedgerDamaged until the process ends.
        """
        ...

    def in_commit(self) -> Mapping[int, float]:
        """Return the threads (by ident) that wait for an unlimited COMMIT, with its start on `time.monotonic()`."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """The location of the ledger, and the limits on callers and waits."""

    url: str
    threads: int = 34  # concurrent callers
    connections: int | None = None  # PostgreSQL: the most to open; None: one per thread
    writes_at_once: int | None = None  # PostgreSQL: the most concurrent write transactions; None: no limit
    turn_timeout: timedelta = timedelta(seconds=5)
    own_statement_timeout: bool = False  # PostgreSQL: a statement_timeout of the URL takes precedence over ours


@dataclass(frozen=True)
class WithTurn:
    """A ledger, as `identity.sql.store.Store`, whose reads and writes take a different turn.

    *ahead* is for a revocation, which must not wait its turn; *until* (of `time.monotonic()`) is for a caller that
    waits no longer than that.
    """

    database: Database
    _: KW_ONLY
    ahead: bool = False
    until: float | None = None

    def write(self, fn: Callable[[Connection], T]) -> T:
        return self.database.write(fn, until=self.until, ahead=self.ahead)

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self.database.read(fn, ahead=self.ahead)


def raise_if_late(until: float | None) -> None:
    """Raise Unavailable if *until* has passed: the caller is told that nothing was written, and no longer waits."""
    if until is not None and time.monotonic() > until:
        raise Unavailable("the ledger could not write this in time")


def open_database(settings: DatabaseSettings) -> Database:
    """Open the ledger; call this after any fork. Raises Misconfigured for another database or a missing driver."""
    # Imported here so that SQLite installations need no psycopg.
    backend = make_url(settings.url).get_backend_name()
    if backend == "sqlite":
        from pipeline.db.sqlite import SqliteDatabase

        return SqliteDatabase(settings.url, threads=settings.threads, turn_timeout=settings.turn_timeout)
    if backend == "postgresql":
        try:
            from pipeline.db.postgresql import PostgresqlDatabase
        except ImportError as error:
            raise Misconfigured(
                f"there is no driver for PostgreSQL ({error}): install it, in the checkout, with "
                "`.venv/bin/pip install --require-hashes -r requirements/hosts.txt`"
            ) from error
        return PostgresqlDatabase(
            settings.url,
            threads=settings.threads,
            connections=settings.connections,
            turn_timeout=settings.turn_timeout,
            writes_at_once=settings.writes_at_once,
            own_statement_timeout=settings.own_statement_timeout,
        )
    raise Misconfigured(f"the database URL names {backend!r}: use sqlite:///path or postgresql+psycopg://host/name")
