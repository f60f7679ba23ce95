"""Celery's consumer, changed to reconnect quickly and to survive unreadable items in a queue.

The stock consumer waits 2, 4, 6 … 30 s between attempts to reconnect; this one 0.5, 1 … 3 s. An item that is not a
message (somebody's LPUSH, a forgery) ends a stock worker's main process, because any error in reading is fatal to its
event loop. Here the item is counted and dropped. On Redis, which has already handed it out, the consumer restarts as
after a lost connection, while running tasks continue; to RabbitMQ it is rejected. The consumer also restarts when the
broker refuses a command, because it became a replica or because a key of another type has a queue's name.

It also restarts, later each time, after errors that neither the connection nor a message caused (out of memory, a
changed library). If that goes on for a minute with no bell begun in between, the process ends. It does not end sooner:
resources may become available again, and a process that exits within seconds of its start is taken for one that cannot
run.

A stock worker also acknowledges messages that it consumes without acknowledgement: it makes and calls a Redis client
each time, while every thread waits for the interpreter.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from json import JSONDecodeError
from queue import Empty
from typing import TYPE_CHECKING, Any

from amqp.exceptions import ConsumerCancelled
from celery.exceptions import WorkerShutdown
from celery.signals import worker_shutting_down
from celery.worker import loops, request, state
from celery.worker.consumer import consumer

from pipeline import metrics

if TYPE_CHECKING:
    from pipeline.broker.celery import App

log = logging.getLogger(__name__)

_REDIS_READS = "BRPOP"
_LOOKS_ROUND = 5.0  # seconds


class UnreadableMessage(Exception):
    """An item from a queue could not be read as a message."""


class ConsumerFailed(Exception):
    """Neither the connection nor a message is to blame."""


class _NotBegun(Exception):
    """A bell was read but could not be handed to the pool."""


# Errors that do not mean a bad item: nothing came, nothing could be begun, out of memory.
_NO_ITEMS = (Empty, _NotBegun, MemoryError)


class UnacknowledgedRequest(request.Request):
    """A task's `Request` without acknowledgement: the broker keeps nothing of the message."""

    def acknowledge(self) -> None:
        self.acknowledged = True


class Consumer(consumer.Consumer):
    """Set as `worker_consumer = "pipeline.broker.consumer:Consumer"`."""

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc, valid-type]  # the stubs call it a variable
        # For delays, which no bell has, Celery would declare 28 queues and 29 exchanges in RabbitMQ.
        default_steps = tuple(
            step for step in consumer.Consumer.Blueprint.default_steps if "delayed_delivery" not in step
        )

    #: The number of consecutive failures, and the least seconds they span, that end the process.
    FAILURES = 10
    FAILS_FOR = 60.0
    #: Seconds before a restart: the pause per consecutive failure, and the longest.
    PAUSE, LONGEST_PAUSE = 0.5, 5.0

    app: App
    hub: Any
    task_consumer: Any
    channel_errors: tuple[type[BaseException], ...]

    def __init__(self, on_task_request: Callable[[Any], object], *args: Any, **kwargs: Any) -> None:
        super().__init__(partial(_begin, on_task_request), *args, **kwargs)
        self.connection_errors: tuple[type[BaseException], ...] = (
            *self.connection_errors,
            UnreadableMessage,
            ConsumerFailed,
        )
        # Bells of each queue that RabbitMQ sends before one begins: more would wait here while other workers are idle.
        self.initial_prefetch_count = 1
        self._failures = 0
        self._fails_since = 0.0

    def ensure_connected(self, conn: Any) -> Any:
        ensure = partial(conn.ensure_connection, interval_start=0.5, interval_step=0.5, interval_max=3)

        def keep_trying(errback: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            def failed(*how: Any) -> Any:
                self.app.hearing.tries()
                return errback(*how)

            return ensure(failed, *args, **kwargs)

        conn.ensure_connection = keep_trying
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self.app.hearing.tries()
        if isinstance(exc, self.channel_errors):  # Celery's own line names only the class
            log.error("the broker refuses a command, and is asked again: %s", exc, extra={"action": "broker.refused"})
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)

        def take(message: Any) -> None:
            if isinstance(message.headers, dict):
                message.headers.pop("eta", None)  # only a forgery has one, and it would be held, in memory, until then
            try:
                with self._reading():
                    handle(message)
            except UnreadableMessage:
                if self.app.settings.is_redis:
                    raise
                message.reject_log_error(log, self.connection_errors)  # RabbitMQ would deliver it again, for ever
            self._failures = 0

        return take

    def loop(self, *args: Any) -> None:
        """Run the event loop over one connection."""
        channel = self.task_consumer.channel
        handlers = getattr(channel, "handlers", {})
        if _REDIS_READS in handlers:  # this also decodes the item
            handlers[_REDIS_READS] = partial(self._read, handlers[_REDIS_READS])
        self.app.hearing.listens()
        look = partial(self._look_round, channel, is_asked=_REDIS_READS in handlers)
        rounds = self.hub.call_repeatedly(_LOOKS_ROUND, look) if self.hub else None
        run = loops.asynloop if self.hub else loops.synloop
        try:
            run(*args)
        except (*self.connection_errors, *self.channel_errors):
            raise
        except Exception as error:
            self._failed(error)
            raise ConsumerFailed(type(error).__name__) from error
        finally:
            if rounds is not None:
                rounds.cancel()

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            with self._reading():
                found = read()
        except Empty:
            self.app.hearing.listens()
            raise
        self.app.hearing.listens()
        return found

    def _look_round(self, channel: Any, *, is_asked: bool) -> None:
        """Note that the loop turns: the only evidence when no thread is free or the broker need not be asked.

        Raises ConsumerCancelled if RabbitMQ no longer sends from each queue. It says so once, and Celery ignores
        everything that it reads right after its start.
        """
        if not is_asked and len(channel.callbacks) < len(self.task_consumer.queues):
            raise ConsumerCancelled("a queue was deleted, or moved to another node")
        if not is_asked or not channel.qos.can_consume():
            self.app.hearing.listens()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Treat errors in this block as the item's fault, unless they are the connection's or the machine's."""
        others: tuple[type[BaseException], ...] = (*self.connection_errors, *self.channel_errors, *_NO_ITEMS)
        try:
            yield
        except others:
            raise
        except Exception as error:
            metrics.UNREADABLE.inc()
            note: dict[str, object] = {"action": "message.unreadable"}
            if isinstance(error, JSONDecodeError):
                # The item may contain somebody's secret; its length and hash are enough to recognize it.
                text = error.doc
                note |= {"length": len(text), "sha256": sha256(text.encode(errors="replace")).hexdigest()}
            log.exception("an item in a queue is not a message: it was taken out, and is gone", extra=note)
            raise UnreadableMessage(type(error).__name__) from error

    def _failed(self, error: Exception) -> None:
        """Count a failure and wait. Raises WorkerShutdown (a warm one) after too many, or when told to stop."""
        now = time.monotonic()
        if self._failures == 0:
            self._fails_since = now
        self._failures += 1
        metrics.CONSUMER_FAILURES.inc()
        note = {"action": "consumer.failed", "failures": self._failures}
        if self._failures < self.FAILURES or now - self._fails_since < self.FAILS_FOR:
            log.error("the consumer failed, and starts again as after a lost connection", exc_info=error, extra=note)
            self._pause(now + min(self.PAUSE * self._failures, self.LONGEST_PAUSE))
            return
        log.critical(
            "the consumer failed %d times and began no bell in between: this process leaves",
            self._failures,
            exc_info=error,
            extra=note,
        )
        # As a signal handler would: running jobs begin nothing further.
        worker_shutting_down.send(sender=self.hostname, sig=None, how="Warm", exitcode=os.EX_SOFTWARE)
        raise WorkerShutdown(os.EX_SOFTWARE) from error

    def _pause(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            state.maybe_shutdown()
            time.sleep(min(left, 0.1))


def _begin(on_task_request: Callable[[Any], object], task: Any) -> None:
    try:
        on_task_request(task)
    except Exception as error:
        raise _NotBegun(f"{type(error).__name__}: {error}") from error
