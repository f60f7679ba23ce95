"""The watchdog: ends the process if a task overruns its limit or the process no longer takes bells.

Time limits do not bind threads: a hanging thread keeps its slot, and a process told to stop waits for it for ever. So
one thread watches the others. When a task is past the limit, it logs every stack, asks the process to stop, spends a
run of each overdue job, waits (for the grace period at most) until only overdue tasks are left, and exits the process.
The supervisor starts the next one. Jobs still running when the grace period is nearly over go back to the queue
unspent. This does not happen sooner: a run whose call was answered could no longer end, and the next worker would wait
until that call's outcome is settled. The same happens to a process that is deaf for twice the time after which its
health reports it.

A task that stands in a COMMIT is no reason to exit. It may wait for as long as a standby is away; another process would
soon wait there as well, and the server keeps the session of the one that exited.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from pipeline import metrics
from pipeline.broker.liveness import DEAF_AFTER

log = logging.getLogger(__name__)

_LOOKS_AGAIN = 0.1  # seconds
_STANDS = 5.0  # seconds in one COMMIT; without a standby to wait for, none takes this long
_FROZEN = 10.0  # seconds without a check: a paused container, a suspended machine

#: The part of the grace period for handing back jobs that still run.
HANDS_BACK = timedelta(seconds=3)

_UNTOLD = "the ledger could not be told of what overstays or still runs: the claims of this process will lapse"

#: The exit code that a supervisor sees.
EXIT_CODE = os.EX_SOFTWARE


@dataclass(frozen=True, kw_only=True)
class TaskLimits:
    """Time limits: for a task without progress, and for other calls before a process exits.

    The grace period is longer than a call, counted from its opening, and than a token request: if either is cut off on
    the wire, its outcome is unknown.
    """

    task: timedelta = timedelta(minutes=5)
    grace: timedelta = timedelta(seconds=35)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task running in one thread. *job* is the bell's job, or None for a revocation."""

    job: str | None
    thread: int
    since: float


def _always(_within: timedelta) -> bool:
    return True


def _nobody() -> Mapping[int, float]:
    return {}


def terminate_self() -> None:
    """Send SIGTERM to this process, Celery's warm shutdown."""
    os.kill(os.getpid(), signal.SIGTERM)


class Watchdog:
    """Watches the tasks of this process.

    `spend(late tasks)` is called at once, and `hand_back(late tasks)`, for all other tasks, before the process exits.
    """

    def __init__(
        self,
        limits: TaskLimits,
        *,
        spend: Callable[[Sequence[Task]], None],
        hand_back: Callable[[Sequence[Task]], None],
        hears: Callable[[timedelta], bool] = _always,
        in_commit: Callable[[], Mapping[int, float]] = _nobody,
        monotonic: Callable[[], float] = time.monotonic,
        terminate: Callable[[], None] = terminate_self,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._limits = limits
        self._spend = spend
        self._hand_back = hand_back
        self._hears = hears  # whether the process heard the broker within a given time
        self._in_commit = in_commit  # the start of each thread's COMMIT, on the same clock
        self._stand = False  # True while long COMMITs have been reported
        self._monotonic = monotonic
        self._terminate = terminate
        self._leave = leave
        self._tasks: dict[int, Task] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._looked = monotonic()
        self._thawed: float | None = None

    @contextmanager
    def watch(self, job: str | None) -> Iterator[Callable[[], None]]:
        """Time this thread's work until the block ends; calling the yielded function restarts the clock."""
        thread = threading.get_ident()

        def moved() -> None:
            with self._lock:
                self._tasks[thread] = Task(job=job, thread=thread, since=self._monotonic())

        moved()
        try:
            yield moved
        finally:
            with self._lock:
                del self._tasks[thread]

    def overstaying(self) -> list[Task]:
        """Return the tasks past the limit, oldest first."""
        with self._lock:
            tasks = list(self._tasks.values())
        oldest = self._monotonic() - self._limits.task.total_seconds()
        return sorted((task for task in tasks if task.since <= oldest), key=lambda task: task.since)

    def start(self) -> None:
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def check(self) -> bool:
        """Exit if there is a reason; return True if this process remains because it is stopping cleanly."""
        late = self.overstaying()
        if late:
            reason = f"{len(late)} task(s) ran longer than {self._limits.task}"
        elif not self._hears(2 * DEAF_AFTER) and not self._has_just_thawed():
            reason = f"the broker was asked for nothing in {2 * DEAF_AFTER}"
        else:
            return False
        grace = self._limits.grace.total_seconds()
        until = time.monotonic() + grace
        last_calls = until - min(HANDS_BACK.total_seconds(), grace / 2)
        try:
            metrics.WATCHDOG_EXITS.inc()
            log.critical(
                "%s: this process leaves\n%s",
                reason,
                stacks(),
                extra={"action": "watchdog.exit", "jobs": [task.job for task in late]},
            )
            self._terminate()  # first, so that work spent, handed back or rung for is not taken here again
            if late:
                self._tell(self._spend, late, until=last_calls)
            if not self._stops(late, last_calls) and not self._runs_only(late):
                self._tell(self._hand_back, late, until=until)
        finally:
            if not self._stopped.is_set():
                self._leave(EXIT_CODE)
        return True

    def _stops(self, late: list[Task], until: float) -> bool:
        """Return True if the process stops cleanly. It does not while only *late* tasks run."""
        while (left := until - time.monotonic()) > 0 and not self._runs_only(late):
            if self._stopped.wait(min(left, _LOOKS_AGAIN)):
                break
        return self._stopped.is_set()

    def _runs_only(self, late: list[Task]) -> bool:
        with self._lock:
            return bool(self._tasks) and all(task in late for task in self._tasks.values())

    def look(self) -> bool:
        """Run `check`, ignoring time in which the process was frozen."""
        now = self._monotonic()
        missed, self._looked = now - self._looked, now
        if missed >= _FROZEN:
            with self._lock:
                for thread, task in self._tasks.items():
                    self._tasks[thread] = replace(task, since=min(now, task.since + missed))
            self._thawed = now
        self._count_anew_in_commit(now)
        return self.check()

    def _count_anew_in_commit(self, now: float) -> None:
        """Restart the clock of tasks in a long COMMIT, so that each has its whole time afterwards."""
        standing = {thread for thread, since in self._in_commit().items() if now - since >= _STANDS}
        with self._lock:
            standing &= set(self._tasks)
            for thread in standing:
                self._tasks[thread] = replace(self._tasks[thread], since=now)
        if standing and not self._stand:
            log.error(
                "%d task(s) stand in a COMMIT of the ledger's server for more than %g s: see with `aswhom doctor` "
                "whether it waits for a standby. This process stays, since a restart would help nothing",
                len(standing),
                _STANDS,
                extra={"action": "watchdog.commit"},
            )
        self._stand = bool(standing)

    def _has_just_thawed(self) -> bool:
        """True if answers from the broker may not have been read yet since a freeze."""
        return self._thawed is not None and self._monotonic() - self._thawed < DEAF_AFTER.total_seconds()

    def _run(self) -> None:
        period = min(1.0, self._limits.task.total_seconds() / 4)
        while not self._stopped.wait(period):
            if self.look():
                return

    def _tell(self, of: Callable[[Sequence[Task]], None], late: list[Task], *, until: float) -> None:
        """Call *of* in another thread, since the ledger may be what hangs."""
        jobs = [task.job for task in late]

        def tell() -> None:
            try:
                of(late)
            except Exception:  # any error: the process exits next
                log.exception(_UNTOLD, extra={"action": "watchdog.untold", "jobs": jobs})

        told = threading.Thread(target=tell, name="watchdog-ledger", daemon=True)
        try:
            told.start()
        except RuntimeError:  # out of threads: other calls are waited for all the same
            log.exception(_UNTOLD, extra={"action": "watchdog.untold", "jobs": jobs})
        else:
            told.join(max(0.0, until - time.monotonic()))


def stacks() -> str:
    """Return the stack of every thread: source lines only, never the values of variables."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - the documented way to see other threads
    ]
    return "\n".join(parts)
