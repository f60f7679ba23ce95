"""Celery's thread pool, cured of two ways to lose a slot.

With prefetch off the event loop asks for a message only when a slot is free, and two things go wrong in the stock pool:
nothing wakes the loop when a thread finishes (up to a second of latency at each turn), and a task that ends by a
BaseException never tells the worker that it ended, so its slot is taken for ever.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from celery.concurrency import thread
from celery.worker import state


def _nothing() -> None:
    """What the loop is woken with."""


class TaskPool(thread.TaskPool):
    """`worker_pool = "pipeline.pool:TaskPool"`, with `worker_disable_prefetch`."""

    _hub: Any = None

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
