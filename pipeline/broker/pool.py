"""Celery's thread pool, with three fixes against lost slots.

With prefetch off, the event loop asks for a message only when a slot is free. In the stock pool nothing wakes the loop
when a thread finishes (up to a second of latency each time), and a task that ends with a BaseException never reports
its end, so its slot is lost for good. The stock pool also starts threads one by one as tasks come: if the machine
refuses one, the task queues behind others without counting against a slot. Here all threads exist before the first bell
is asked for.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from celery.concurrency import thread
from celery.worker import state

from pipeline import metrics

log = logging.getLogger(__name__)


def _nothing() -> None:
    """Do nothing; scheduling this wakes the loop."""


class TaskPool(thread.TaskPool):
    """Set as `worker_pool = "pipeline.broker.pool:TaskPool"`, with `worker_disable_prefetch`."""

    #: Seconds to wait for a machine that refuses more threads.
    PATIENCE = 60.0

    executor: ThreadPoolExecutor
    _hub: Any = None

    def on_start(self) -> None:
        """Start every thread. Raises SystemExit if that is impossible.

        It does not give up at once: a process that exits within seconds of its start is taken for one that cannot run.
        """
        until = time.monotonic() + self.PATIENCE
        while not self._has_every_thread():
            if time.monotonic() >= until:
                log.critical(
                    "this machine gives no %d threads: raise its limit (`ulimit -u`, `pids.max`), or lower "
                    "--concurrency",
                    self.limit,
                    extra={"action": "worker.threadless"},
                )
                raise SystemExit(os.EX_OSERR)
            state.maybe_shutdown()
            time.sleep(min(1.0, self.PATIENCE))
        metrics.THREADS.labels("all").set(self.limit)

    def _has_every_thread(self) -> bool:
        together = threading.Event()
        try:
            for _ in range(self.limit):
                self.executor.submit(together.wait)  # holds a thread, so that the next one needs another
        except RuntimeError as refused:
            log.warning("a thread cannot be had, and is asked for again: %s", refused, extra={"action": "pool.refused"})
            together.set()
            self.executor.shutdown()  # it has queued the work that got no thread, and would count it as a thread
            self.executor = ThreadPoolExecutor(max_workers=self.limit)
            return False
        together.set()
        return True

    def register_with_event_loop(self, hub: Any) -> None:
        self._hub = hub

    def on_apply(
        self,
        target: Any,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Any = None,
        accept_callback: Any = None,
        **options: Any,
    ) -> Any:
        result = super().on_apply(target, args, kwargs, callback, accept_callback, **options)
        request = getattr(callback, "__self__", None)

        def free_the_slot(future: Future[Any]) -> None:
            if request is not None and (future.cancelled() or future.exception() is not None):
                state.task_ready(request)  # the task's own callback did not run
            if self._hub is not None:
                self._hub.call_soon(_nothing)

        result.f.add_done_callback(free_the_slot)
        return result
