"""SQLite behind `write(fn)`: one write at a time per process (`group_commit`), and turns between processes."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import NullPool

from identity.errors import LedgerDamaged, Misconfigured, Unavailable
from identity.sql.store import CommitUnknown
from pipeline.db.database import raise_if_late
from pipeline.db.group_commit import Writer
from pipeline.db.sqlite_file import is_damage, what_to_do
from pipeline.db.turnstile import Turnstile, WriteGate

T = TypeVar("T")
log = logging.getLogger(__name__)

ROOM = 16_000_000  # bytes: the size that the WAL reaches between two checkpoints, plus large bodies


def _engine(url: str, *, readers: int = 0) -> Engine:
    """Make the engine for that many concurrent readers; 0: for the writer."""
    # A connection beyond the pool would be opened each time, and read the whole schema.
    pool = {"pool_size": readers, "max_overflow": 64, "pool_use_lifo": True} if readers else {"poolclass": NullPool}
    engine = create_engine(
        url,
        hide_parameters=True,  # error texts must not contain written data
        connect_args={"isolation_level": None, "cached_statements": 512, "timeout": 5.0, "check_same_thread": False},
        **pool,
    )

    @event.listens_for(engine, "connect")
    def configure(raw: Any, record: Any) -> None:
        for pragma in (
            "journal_mode=WAL",
            f"journal_size_limit={ROOM}",  # shrinks a WAL that has grown beyond this during a long read
            "synchronous=FULL",
            "foreign_keys=ON",
            f"query_only={int(readers > 0)}",
        ):
            raw.execute(f"PRAGMA {pragma}")

    return engine


class SqliteDatabase:
    """The embedded ledger. Open it after any fork: a forked child would share the locks."""

    def __init__(
        self,
        url: str,
        *,
        threads: int = 34,
        turn_timeout: timedelta = timedelta(seconds=5),
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        path = make_url(url).database
        if not path or path == ":memory:":
            raise Misconfigured("the ledger must be a file, sqlite:///path: an in-memory database cannot be shared")
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise Misconfigured(f"the directory of the ledger does not exist: {self.path.parent}. Run `aswhom init`")
        self.engine = _engine(url, readers=threads)
        self._writer_engine = _engine(url)
        self._free = free
        timeout = turn_timeout.total_seconds()
        self._writer = Writer(self._writer_engine, Turnstile(self.path), name="ledger-writer", timeout=timeout)
        self._ahead = Writer(self._writer_engine, WriteGate(self.path), name="ledger-ahead", timeout=timeout)
        self._pid = os.getpid()
        self._damaged = False  # permanent once set: only a restart on another file helps

    def write(self, fn: Callable[[Connection], T], *, until: float | None = None, ahead: bool = False) -> T:
        if os.getpid() != self._pid:
            raise RuntimeError("the ledger was opened before a fork: open it in the child")
        raise_if_late(until)
        try:
            return (self._ahead if ahead else self._writer).write(fn, until)
        except (DatabaseError, sqlite3.DatabaseError) as error:
            self._raise_if_damaged(error)
            raise
        except CommitUnknown as unknown:
            if is_damage(unknown.__cause__):
                self._note_damage(unknown.__cause__)
            raise

    def read(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
        try:
            with self.engine.connect() as connection:
                driver: Any = connection.connection.driver_connection  # as for a write, faster than through SQLAlchemy
                driver.execute("BEGIN")  # one snapshot for all reads of a function
                try:
                    return fn(connection)
                finally:
                    if not connection.invalidated:
                        driver.rollback()
        except (DatabaseError, sqlite3.DatabaseError) as error:
            self._raise_if_damaged(error)
            if not isinstance(error, (OperationalError, sqlite3.OperationalError)):
                raise
            fault = error.orig if isinstance(error, OperationalError) else error
            if getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
                raise  # the statement's own fault: a bug, or missing migrations
            raise Unavailable(f"the ledger {self.path} cannot be read: {fault}") from error

    def _raise_if_damaged(self, error: Exception) -> None:
        if is_damage(error):
            self._note_damage(error)
            raise LedgerDamaged(what_to_do(self.path)) from error

    def _note_damage(self, error: BaseException | None) -> None:
        if not self._damaged:
            said = getattr(error, "orig", error)
            log.critical("%s (%s)", what_to_do(self.path), said, extra={"action": "ledger.damaged"})
        self._damaged = True

    def check_fit(self) -> None:
        if self._damaged:
            raise LedgerDamaged(what_to_do(self.path))
        # Not by a write: one that is rolled back never reaches the disk, and a commit per check is too expensive.
        free = self._free(self.path.parent)
        if free < ROOM:
            raise Unavailable(f"{free // 1_000_000} MB are free where {self.path} lies: make room")

    def in_commit(self) -> Mapping[int, float]:
        """Return nothing: the disk is this machine's, and a restarted process would wait for it again."""
        return {}

    def close(self) -> None:
        writers = (self._writer, self._ahead)
        for writer in writers:
            writer.end()
        stuck = [writer for writer in writers if not writer.close()]
        if stuck:
            # This process must be able to end anyway; the kernel releases what the thread waits for.
            log.warning(
                "the ledger's writer did not end", extra={"action": "ledger.writer_left", "path": str(self.path)}
            )
            return
        self.engine.dispose()
        self._writer_engine.dispose()
