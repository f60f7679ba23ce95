"""The state of one worker process and its two tasks, which pass the ids from bells to the ledger's worker."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from identity.errors import Misconfigured
from pipeline import metrics
from pipeline.broker.coalescing import Coalescing
from pipeline.broker.watchdog import Task, TaskLimits, Watchdog, terminate_self

if TYPE_CHECKING:
    from pipeline.broker.celery import App, OpenedRuntime

log = logging.getLogger(__name__)

_BUSY = metrics.THREADS.labels("busy")


class Process:
    """Everything one worker process holds between `worker_init` and `worker_shutdown`."""

    def __init__(self, app: App, limits: TaskLimits) -> None:
        self._app = app
        self._runtime: OpenedRuntime | None = None
        self._watchdog = Watchdog(
            limits,
            spend=lambda late: self._opened().worker.spend(self._jobs(late)),
            hand_back=lambda late: self._opened().worker.hand_back(besides=self._jobs(late)),
            hears=app.hearing.is_well,
            in_commit=lambda: {} if self._runtime is None else self._runtime.in_commit(),
            terminate=self._terminate,
        )
        self._advance = Coalescing(self._advance_now)

    def job(self, job_id: str, lapses: object) -> None:
        with _BUSY.track_inprogress(), self._watchdog.watch(_an_id(job_id)):
            self._opened().worker.handle(job_id, lapses=_a_time(lapses))

    def revocation(self, revocation_id: str) -> None:
        with _BUSY.track_inprogress():
            self._advance(_an_id(revocation_id))

    def _advance_now(self, revocation: str) -> None:
        # Long revocations are fine; one hangs when no part of it completes any more.
        with self._watchdog.watch(None) as moved:
            self._opened().revoker.answer(revocation, moved=moved)

    def open(self, sender: Any, **_: Any) -> None:
        if sender.app is not self._app:
            return
        try:
            self._runtime = self._app.open_runtime()
        # Celery logs exceptions of a signal's receiver and starts all the same, except for SystemExit.
        except Misconfigured as fault:
            log.critical("the worker cannot start: %s", fault, extra={"action": "worker.misconfigured"})
            raise SystemExit(os.EX_CONFIG) from fault
        except Exception as error:
            log.exception("the worker cannot start", extra={"action": "worker.unopened"})
            raise SystemExit(1) from error
        self._app.hearing.begin()
        self._watchdog.start()

    def wind_down(self, **_: Any) -> None:
        """Stop listening and let jobs begin nothing further.

        Celery passes the host here, not the application. In a process that only rings nothing is open.
        """
        self._app.hearing.end()
        if self._runtime is not None:
            self._runtime.wind_down()

    def close(self, sender: Any, **_: Any) -> None:
        if sender.app is self._app and self._runtime is not None:
            runtime, self._runtime = self._runtime, None
            try:
                runtime.close()
            finally:
                self._watchdog.stop()

    def _opened(self) -> OpenedRuntime:
        if self._runtime is None:
            raise RuntimeError("this process is not a started worker")
        return self._runtime

    def _terminate(self) -> None:
        self.wind_down()  # a hanging main thread runs no signal handlers
        terminate_self()

    def _jobs(self, late: Sequence[Task]) -> list[str]:
        active = self._opened().worker.active_jobs
        return [active.get(task.thread, task.job) for task in late if task.job is not None]


def _an_id(argument: object) -> str:
    """Check an id from a message, whose arguments anyone with access to the broker can choose. Raises TypeError."""
    if not isinstance(argument, str) or not 0 < len(argument) <= 64:
        raise TypeError("a bell carries one id")
    return argument


def _a_time(argument: object) -> int | None:
    """Check a time from a message: microseconds since 1970, or None. Raises TypeError."""
    if argument is not None and not isinstance(argument, int):
        raise TypeError("a bell carries one id and until when it is outstanding")
    return argument
