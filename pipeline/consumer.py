"""Celery's consumer, which comes back to a broker quickly and does not die of what lies in a queue.

The stock consumer waits 2, 4, 6 … 30 s between attempts to reconnect; this one 0.5, 1 … 3 s. And an item that is not a
message (a person's LPUSH, a forger's) ends a stock worker's main process: whatever reading raises is fatal to its event
loop. Here the item, which the broker has already handed out, is counted and dropped, and the consumer starts again as
after a lost connection: the tasks that run keep running. So it does when the broker refuses a command: it has become a
replica, or somebody's key has another type and a queue's name.

And the stock worker acknowledges what it consumes without acknowledgements: a client of Redis is made and asked, each
time, while every thread waits for the interpreter.
"""

from __future__ import annotations

import logging
from functools import partial
from hashlib import sha256
from json import JSONDecodeError
from typing import Any

from celery.worker import loops, request
from celery.worker.consumer import consumer

from pipeline import metrics

log = logging.getLogger(__name__)


class UnreadableMessage(Exception):
    """What came out of a queue could not be taken as a message."""


class Request(request.Request):
    """A task's `Request`: the broker kept nothing of the message that it could be told of."""

    def acknowledge(self) -> None:
        self.acknowledged = True


class Consumer(consumer.Consumer):
    """`worker_consumer = "pipeline.consumer:Consumer"`."""

    hub: Any
    channel_errors: tuple[type[BaseException], ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection_errors: tuple[type[BaseException], ...] = (*self.connection_errors, UnreadableMessage)

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(conn.ensure_connection, interval_start=0.5, interval_step=0.5, interval_max=3)
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        if isinstance(exc, self.channel_errors):  # Celery's own line names the class alone
            log.error("the broker refuses a command, and is asked again: %s", exc, extra={"action": "broker.refused"})
        super().on_connection_error_after_connected(exc)

    def loop(self, *args: Any) -> None:
        """The event loop, where everything that is not the connection's fault is a message's."""
        run = loops.asynloop if self.hub else loops.synloop
        try:
            run(*args)
        except (*self.connection_errors, *self.channel_errors):
            raise
        except Exception as error:
            metrics.UNREADABLE.inc()
            note: dict[str, object] = {"action": "message.unreadable"}
            if isinstance(error, JSONDecodeError):
                # What lies there may be anybody's secret: its length and hash are enough to recognise it by.
                text = error.doc
                note |= {"length": len(text), "sha256": sha256(text.encode(errors="replace")).hexdigest()}
            log.exception("an item in a queue is not a message: it was taken out, and is gone", extra=note)
            raise UnreadableMessage(type(error).__name__) from error
