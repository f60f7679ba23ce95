"""Liveness of a worker's connection to the broker.

Nobody notices a process that lives but takes no bells: it answers Prometheus, and others do its work, later. So the
consumer notes each answer to its request for bells (the broker sends one within a second or two, even if empty), and
each time that no thread is free to ask for one. A worker that waits for an absent broker is trying and not deaf.
RabbitMQ pushes instead of being asked: there the evidence is that the consumer's loop turns and has every queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from pipeline import metrics

#: After this time it is reported, and its process should be ended.
DEAF_AFTER = timedelta(seconds=60)


class Hearing:
    """The liveness of one process. It is not deaf before it begins (it may await its ledger) or after it is ended."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at: float | None = None
        self._ended = False

    def begin(self) -> None:
        """Note that the process has everything it works with and must listen from now on."""
        self.listens()

    def listens(self) -> None:
        """Note that the broker answered, or is not asked because every thread is busy."""
        self.tries()
        metrics.CONSUMER_LISTENED.set_to_current_time()

    def tries(self) -> None:
        """Note that the broker is away and is asked again."""
        self._at = self._monotonic()
        metrics.CONSUMER_TRIED.set_to_current_time()

    def end(self) -> None:
        """Note that the process was told to stop and asks no more."""
        self._ended = True

    def has_begun(self) -> bool:
        return self._at is not None

    def is_well(self, within: timedelta = DEAF_AFTER) -> bool:
        at = self._at
        return self._ended or at is None or self._monotonic() - at <= within.total_seconds()
