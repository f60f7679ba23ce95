"""Group commit for SQLite: one write at a time per process, and waiting writes share a COMMIT.

The rules:
- One thread at a time has the connection: a caller that did not have to wait, or the writer thread, which runs up to
GROUP queued functions inside one BEGIN IMMEDIATE … COMMIT.
- Nobody is answered before the group's COMMIT, not even a caller whose function raised or found a duplicate.
- If COMMIT fails, the transaction ended early, or anything else goes wrong, every caller of the group gets
CommitUnknown, the gate is released, the connection is reopened, and the next group is served.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine

from identity.errors import Unavailable
from identity.sql.store import CommitUnknown
from pipeline.db.database import raise_if_late
from pipeline.db.turnstile import WriteGate

T = TypeVar("T")
log = logging.getLogger(__name__)

GROUP = 32  # the most writes in one COMMIT


class _Write(Generic[T]):
    """A function and its outcome."""

    __slots__ = ("fn", "outcome", "raised", "until")

    def __init__(self, fn: Callable[[Connection], T], until: float | None) -> None:
        self.fn = fn
        self.until = until
        self.outcome: Any = None
        self.raised: BaseException | None = None

    def result(self) -> T:
        if self.raised is None:
            return self.outcome  # type: ignore[no-any-return]  # returned by *fn*
        try:
            raise self.raised
        finally:
            self.raised = None  # its traceback refers to this object


class _Queued(_Write[T]):
    """A write whose caller waits for a future."""

    __slots__ = ("future",)

    def __init__(self, fn: Callable[[Connection], T], until: float | None) -> None:
        super().__init__(fn, until)
        self.future: Future[T] = Future()

    def answer(self) -> None:
        if self.raised is not None:
            self.future.set_exception(self.raised)
        else:
            self.future.set_result(self.outcome)


class Writer:
    """Writes one group after another, each after passing *gate*.

    A caller that finds nobody at work, nothing queued and the gate open writes in its own thread, because handing over
    and waking up take as long as the write. Everything else is queued, and a thread writes it in groups. Writes of the
    main thread are always queued: signal handlers run in that thread, and their exceptions could surface at any line.
    """

    def __init__(self, engine: Engine, gate: WriteGate, *, name: str, timeout: float) -> None:
        self._engine = engine
        self._gate = gate
        self._timeout = timeout
        self._connection: Connection | None = None
        self._changed = threading.Condition()  # guards the next three
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
            if queued.future.cancel():  # still queued, so certainly not written
                raise Unavailable("the ledger had no turn for this write in time") from None
        # Its group is being committed: whatever comes now is the answer.
        try:
            return queued.future.result(self._timeout)
        except FutureTimeout:
            raise CommitUnknown("the commit did not return in time") from None

    def end(self) -> None:
        """Accept nothing more; finish what is queued."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def close(self) -> bool:
        """Wait for the thread to end; return False if it does not, as a stopped process may hold the gate."""
        self._thread.join(2 * self._timeout)
        if self._thread.is_alive():
            return False
        self._gate.close()
        return True

    def _write_at_once(self, write: _Write[Any]) -> bool:
        """Write now and return True, if nobody has to be waited for."""
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
        except Exception as error:  # noqa: BLE001 - flock failed, or out of memory: without this thread nobody writes
            group = group or self._group()
            _fail(group, error)
        self._go_on()
        for write in group:
            write.answer()

    def _has_work(self) -> bool:
        """Wait for work. Return False if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work and (self._queue or self._ending))
            self._at_work = bool(self._queue)
            return self._at_work

    def _group(self) -> list[_Queued[Any]]:
        """Take the waiting writes, without those whose caller gave up in time."""
        group: list[_Queued[Any]] = []
        with self._changed:
            while self._queue and len(group) < GROUP:
                write = self._queue.popleft()
                if write.future.set_running_or_notify_cancel():
                    group.append(write)
        return group

    def _commit(self, group: Sequence[_Write[Any]]) -> None:
        """Commit *group*; each write holds its own outcome afterwards, whatever happens."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            _run(self._connection, group)
        except BaseException as error:
            if self._connection is not None:
                broken, self._connection = self._connection, None
                broken.invalidate()  # closes it, which rolls back anything left
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
        write.raised.__cause__ = error


def _run(connection: Connection, group: Sequence[_Write[Any]]) -> None:
    if not group:
        return
    driver: Any = connection.connection.driver_connection  # SQLAlchemy takes longer for these than the database does
    alone = len(group) == 1  # a single write is undone with the transaction
    driver.execute("BEGIN IMMEDIATE")
    for write in group:
        if not alone:
            driver.execute("SAVEPOINT one")
        try:
            write.outcome = write.fn(connection)
            raise_if_late(write.until)
        except BaseException as error:  # noqa: BLE001 - handed to its caller; the rest of the group is served
            write.raised = error
            # Raises if the transaction has ended early (disk full): then nothing of the group was written.
            driver.execute("ROLLBACK" if alone else "ROLLBACK TO one")
        if not alone:
            driver.execute("RELEASE one")
    if not (alone and group[0].raised is not None):
        driver.execute("COMMIT")
