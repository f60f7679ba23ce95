"""Whether this worker listens to the broker.

A process that lives and takes no bells is seen by nobody: it answers Prometheus, and others do its work, later. So the
consumer notes each answer it has to its question for bells (the broker has one within a second or two, an empty one
too), and that it has no thread free to ask for. Who waits for a broker that is away tries, and is not deaf. RabbitMQ
is not asked, it sends: there all that is seen is that the consumer's loop turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from pipeline import metrics

#: From then on it is told of, and its process is to be ended.
DEAF_AFTER = timedelta(seconds=60)


class Hearing:
    """Of one process. What has not begun (it waits for its ledger, say), or has been ended, is not deaf."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at: float | None = None
        self._ended = False

    def begin(self) -> None:
        """The process has all that it works with: from now on it is to listen."""
        self.listens()

    def listens(self) -> None:
        """The broker answered, or is not asked because every thread is busy."""
        self.tries()
        metrics.CONSUMER_LISTENED.set_to_current_time()

    def tries(self) -> None:
        """The broker is away, and asked again."""
        self._at = self._monotonic()
        metrics.CONSUMER_TRIED.set_to_current_time()

    def end(self) -> None:
        """The process was told to stop, and asks no more."""
        self._ended = True

    def has_begun(self) -> bool:
        return self._at is not None

    def is_well(self, within: timedelta = DEAF_AFTER) -> bool:
        at = self._at
        return self._ended or at is None or self._monotonic() - at <= within.total_seconds()
