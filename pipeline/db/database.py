"""The ledger database behind the one seam for writes.

`open_database` gives a `Database` for an SQLAlchemy URL: SQLite for one machine, PostgreSQL for many hosts. A
transaction is a function handed to `write`, so none can be open across HTTP and any can be repeated.
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
    """A ledger database; see `identity.sql.store.Store` for what `write` and `read` promise."""

    engine: Engine

    def write(self, fn: Callable[[Connection], T], *, until: float | None = None, ahead: bool = False) -> T:
        """With *until*, of `time.monotonic()`: not written if *fn* returned after it, and who waits for a turn is told.

        In a group of SQLite's writer the COMMIT comes after the group's other functions. *ahead*: before whatever waits
        for its turn in this process, and on SQLite in others.
        """
        ...

    def read(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
        """*ahead*: on PostgreSQL, by a connection that ordinary reads and writes leave to revocations."""
        ...

    def check_fit(self) -> None:
        """Return if there is room for what writes add and no damage was met, as far as this process can see.

        Raises Unavailable, and LedgerDamaged from the first damage to the process's end.
        """
        ...

    def in_commit(self) -> Mapping[int, float]:
        """Since when threads, by their idents, wait for a COMMIT that no limit ends; of `time.monotonic()`."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Where the ledger is and how long a caller waits for its turn."""

    url: str
    threads: int = 34  # callers at once
    connections: int | None = None  # on PostgreSQL: how many are open at most; None: one for each of the threads
    writes_at_once: int | None = None  # on PostgreSQL: how many of them have a write's transaction; None: all
    turn_timeout: timedelta = timedelta(seconds=5)


@dataclass(frozen=True)
class WithTurn:
    """A ledger as `identity.sql.store.Store` whose writes have another turn than most.

    *ahead* is for a revocation, which must not wait its turn; *until*, of `time.monotonic()`, for somebody who waits no
    longer than that.
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
    """Raises Unavailable when *until* has passed: whoever asked is told that it was not written, and is not waiting."""
    if until is not None and time.monotonic() > until:
        raise Unavailable("the ledger could not write this in time")


def open_database(settings: DatabaseSettings) -> Database:
    """Open the ledger. Call it after any fork. Raises Misconfigured for another kind, or without its driver."""
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
                f"there is no driver for PostgreSQL ({error}): install it with `pip install 'aswhom[postgres]'`, in a "
                "checkout `.venv/bin/pip install --require-hashes -r requirements/hosts.txt`"
            ) from error
        return PostgresqlDatabase(
            settings.url,
            threads=settings.threads,
            connections=settings.connections,
            turn_timeout=settings.turn_timeout,
            writes_at_once=settings.writes_at_once,
        )
    raise Misconfigured(f"the database URL names {backend!r}: use sqlite:///path or postgresql+psycopg://host/name")
