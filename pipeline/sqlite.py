"""SQLite behind `write(fn)`: one write at a time in a process, group commit, and a turnstile between processes.

The laws:
- one thread at a time has the connection: a caller's that had to wait for nobody, or else the writer's own, which
  runs what is queued, up to GROUP of it, inside one BEGIN IMMEDIATE … COMMIT;
- nobody is answered before the group's COMMIT, not even a caller whose function raised or found a duplicate;
- if COMMIT fails or the transaction ended early, or anything else goes wrong, every caller of the group gets
  CommitUnknown, the gate is released, the connection is opened anew, and the next group is served.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from identity.errors import Misconfigured, Unavailable
from identity.store import CommitUnknown
from pipeline.database import raise_if_late

T = TypeVar("T")
log = logging.getLogger(__name__)

GROUP = 32  # writes in one COMMIT at the most
ROOM = 16_000_000  # bytes: what the log of changes grows to between two checkpoints, and large bodies beside


class _Write(Generic[T]):
    """A function and what came of it."""

    __slots__ = ("fn", "outcome", "raised", "until")

    def __init__(self, fn: Callable[[Connection], T], until: float | None) -> None:
        self.fn = fn
        self.until = until
        self.outcome: Any = None
        self.raised: BaseException | None = None

    def result(self) -> T:
        if self.raised is None:
            return self.outcome  # type: ignore[no-any-return]  # *fn* has returned it
        try:
            raise self.raised
        finally:
            self.raised = None  # its traceback holds us


class _Queued(_Write[T]):
    """One whose caller waits for a future."""

    __slots__ = ("future",)

    def __init__(self, fn: Callable[[Connection], T], until: float | None) -> None:
        super().__init__(fn, until)
        self.future: Future[T] = Future()

    def answer(self) -> None:
        if self.raised is not None:
            self.future.set_exception(self.raised)
        else:
            self.future.set_result(self.outcome)


class _Gate:
    """Whoever has passed it writes. To come here without a turn is to go before all who wait for theirs."""

    def __init__(self, database: Path) -> None:
        self._gate = _lock_file(f"{database}.gate")

    def enter(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_EX)

    def enter_at_once(self) -> bool:
        """Enter if nobody has to be waited for."""
        return _locked_at_once(self._gate)

    def leave(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._gate)


class _Turnstile(_Gate):
    """First the turn, then the gate: fair between processes, where SQLite's own busy handler starves a waiter."""

    def __init__(self, database: Path) -> None:
        super().__init__(database)
        self._turn = _lock_file(f"{database}.turn")

    def enter(self) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            super().enter()
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def enter_at_once(self) -> bool:
        if not _locked_at_once(self._turn):
            return False  # somebody waits for the gate
        try:
            return super().enter_at_once()
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._turn)
        super().close()


def _locked_at_once(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # or no lock can be had at all, which is found out again by who waits for it
        return False
    return True


def _lock_file(path: str) -> int:
    """A descriptor of its own, since `flock` keeps out other descriptors and not other threads."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _engine(url: str, *, readers: int = 0) -> Engine:
    """For so many readers at once; 0: for the writer."""
    # One more than are kept would be opened anew each time, and read the whole schema.
    pool = {"pool_size": readers, "max_overflow": 64, "pool_use_lifo": True} if readers else {"poolclass": NullPool}
    engine = create_engine(
        url,
        hide_parameters=True,  # an error's text must not carry what was written
        connect_args={"isolation_level": None, "cached_statements": 512, "timeout": 5.0, "check_same_thread": False},
        **pool,
    )

    @event.listens_for(engine, "connect")
    def configure(raw: Any, record: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"query_only={int(readers > 0)}"):
            raw.execute(f"PRAGMA {pragma}")

    return engine


class _Writer:
    """Writes, one group after the other, each of them when it has passed *gate*.

    Who finds nobody at work, nothing queued and the gate open writes in its own thread: to hand a function to another
    and wake up again takes as long as the write. What has to wait is queued, and a thread writes it in groups. So is
    what the main thread writes: handlers of signals run in that one, and what they raise would come out of any line.
    """

    def __init__(self, engine: Engine, gate: _Gate, *, name: str, timeout: float) -> None:
        self._engine = engine
        self._gate = gate
        self._timeout = timeout
        self._connection: Connection | None = None
        self._changed = threading.Condition()  # of the three that follow
        self._queue: deque[_Queued[Any]] = deque()
        self._at_work = False
        self._ending = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def write(self, fn: Callable[[Connection], T], until: float | None) -> T:
        in_main = threading.current_thread() is threading.main_thread()
        with self._changed:
            at_once = not (in_main or self._queue or self._at_work or self._ending)
            self._at_work |= at_once
        if at_once:
            write = _Write(fn, until)
            try:
                written = self._write_at_once(write)
            finally:
                self._go_on()
            if written:
                return write.result()
        return self._wait_for(_Queued(fn, until))

    def _wait_for(self, queued: _Queued[T]) -> T:
        until = queued.until
        patience = self._timeout if until is None else min(self._timeout, max(until - time.monotonic(), 0))
        with self._changed:
            if self._ending:
                raise Unavailable("the ledger is closed")
            self._queue.append(queued)
            self._changed.notify()
        try:
            return queued.future.result(patience)
        except FutureTimeout:
            if queued.future.cancel():  # still in the queue: certainly not written
                raise Unavailable("the ledger had no turn for this write in time") from None
        # Its group is being committed: whatever comes now is the answer.
        try:
            return queued.future.result(self._timeout)
        except FutureTimeout:
            raise CommitUnknown("the commit did not return in time") from None

    def end(self) -> None:
        """Take nothing more after what is queued."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def close(self) -> bool:
        """Wait for its end. Whether it came: another process may have been stopped with the gate in its hands."""
        self._thread.join(2 * self._timeout)
        if self._thread.is_alive():
            return False
        self._gate.close()
        return True

    def _write_at_once(self, write: _Write[Any]) -> bool:
        """Whether there was nobody to wait for."""
        if not self._gate.enter_at_once():
            return False
        try:
            self._commit([write])
        finally:
            self._leave([write])
        return True

    def _go_on(self) -> None:
        with self._changed:
            self._at_work = False
            if self._queue or self._ending:
                self._changed.notify()

    def _leave(self, group: Sequence[_Write[Any]]) -> None:
        try:
            self._gate.leave()
        except OSError as error:
            _fail(group, error)

    def _serve(self) -> None:
        while self._has_work():
            self._write_group()
        if self._connection is not None:
            self._connection.close()

    def _write_group(self) -> None:
        group: list[_Queued[Any]] = []
        try:
            self._gate.enter()
            try:
                group = self._group()
                self._commit(group)
            finally:
                self._leave(group)
        except Exception as error:  # noqa: BLE001 - of flock, no memory: without this thread nobody writes
            group = group or self._group()
            _fail(group, error)
        self._go_on()
        for write in group:
            write.answer()

    def _has_work(self) -> bool:
        """Wait for it. False: there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work and (self._queue or self._ending))
            self._at_work = bool(self._queue)
            return self._at_work

    def _group(self) -> list[_Queued[Any]]:
        """What waits; a caller who gave up in time is left out."""
        group: list[_Queued[Any]] = []
        with self._changed:
            while self._queue and len(group) < GROUP:
                write = self._queue.popleft()
                if write.future.set_running_or_notify_cancel():
                    group.append(write)
        return group

    def _commit(self, group: Sequence[_Write[Any]]) -> None:
        """Write *group*; what came of each stands in it, whatever happens."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            _run(self._connection, group)
        except BaseException as error:
            if self._connection is not None:
                broken, self._connection = self._connection, None
                broken.invalidate()  # closes it, which rolls back whatever is left
                broken.close()
            _fail(group, error)
            if not isinstance(error, Exception):
                raise


def _fail(group: Sequence[_Write[Any]], error: BaseException) -> None:
    log.error(
        "ledger commit failed",
        extra={"action": "ledger.commit_failed", "writes": len(group), "error": str(error)},
    )
    for write in group:
        write.raised = CommitUnknown("the commit failed; read again by your own key")


def _run(connection: Connection, group: Sequence[_Write[Any]]) -> None:
    if not group:
        return
    driver: Any = connection.connection.driver_connection  # SQLAlchemy takes longer over these than the database
    alone = len(group) == 1  # and undone with the transaction
    driver.execute("BEGIN IMMEDIATE")
    for write in group:
        if not alone:
            driver.execute("SAVEPOINT one")
        try:
            write.outcome = write.fn(connection)
            raise_if_late(write.until)
        except BaseException as error:  # noqa: BLE001 - handed to its caller: the others of the group are served
            write.raised = error
            # Raises when the transaction has ended early (disk full): then nobody of the group was written.
            driver.execute("ROLLBACK" if alone else "ROLLBACK TO one")
        if not alone:
            driver.execute("RELEASE one")
    if not (alone and group[0].raised is not None):
        driver.execute("COMMIT")


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
        self._writer = _Writer(self._writer_engine, _Turnstile(self.path), name="ledger-writer", timeout=timeout)
        self._ahead = _Writer(self._writer_engine, _Gate(self.path), name="ledger-ahead", timeout=timeout)
        self._pid = os.getpid()

    def write(self, fn: Callable[[Connection], T], *, until: float | None = None, ahead: bool = False) -> T:
        if os.getpid() != self._pid:
            raise RuntimeError("the ledger was opened before a fork: open it in the child")
        raise_if_late(until)
        return (self._ahead if ahead else self._writer).write(fn, until)

    def read(self, fn: Callable[[Connection], T]) -> T:
        try:
            with self.engine.connect() as connection:
                driver: Any = connection.connection.driver_connection  # as for a write: SQLAlchemy takes longer
                driver.execute("BEGIN")  # one snapshot for all reads of a function
                try:
                    return fn(connection)
                finally:
                    if not connection.invalidated:
                        driver.rollback()
        except (OperationalError, sqlite3.OperationalError) as error:
            fault = error.orig if isinstance(error, OperationalError) else error
            if getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
                raise  # the statement's own fault: a bug, or migrations that were not run
            raise Unavailable(f"the ledger {self.path} cannot be read: {fault}") from error

    def check_room(self) -> None:
        # Not by a write: one that is taken back reaches no disk, and a commit a question is too dear.
        free = self._free(self.path.parent)
        if free < ROOM:
            raise Unavailable(f"{free // 1_000_000} MB are free where {self.path} lies: make room")

    def close(self) -> None:
        writers = (self._writer, self._ahead)
        for writer in writers:
            writer.end()
        stuck = [writer for writer in writers if not writer.close()]
        if stuck:
            # Ours must be able to end all the same, and the kernel takes back what the thread waits for.
            log.warning(
                "the ledger's writer did not end", extra={"action": "ledger.writer_left", "path": str(self.path)}
            )
            return
        self.engine.dispose()
        self._writer_engine.dispose()
