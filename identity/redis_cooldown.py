"""Leaving a failed Redis alone: known once per process, however many objects share the client.

A Redis that hangs costs each caller a whole timeout. After a failure nobody asks it for a while, and then one caller at
a time tries it, as with a half-open circuit breaker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from identity.metrics import REDIS_FAILURES

log = logging.getLogger(__name__)


class RedisCooldown:
    """The cooldown of one Redis, shared by all threads and by all objects that use the client."""

    def __init__(
        self, *, lasts: timedelta = timedelta(seconds=5), monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lasts = lasts.total_seconds()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._again: float | None = None  # since a failure: when the next caller may try it

    def may_ask(self) -> bool:
        """True while Redis answers; after a failure, for one caller per cooldown."""
        with self._lock:
            if self._again is None:
                return True
            now = self._monotonic()
            if now < self._again:
                return False
            self._again = now + self._lasts
            return True

    def answered(self) -> None:
        """Redis answered: all may ask it again."""
        with self._lock:
            was_away, self._again = self._again is not None, None
        if was_away:
            log.info("Redis answers again", extra={"action": "redis.back"})

    def failed(self, error: Exception) -> None:
        """Redis did not answer, or refuses everybody."""
        with self._lock:
            first, self._again = self._again is None, self._monotonic() + self._lasts
        REDIS_FAILURES.inc()
        if first:
            what = type(error).__name__
            log.warning("Redis is left alone for %g s: %s", self._lasts, what, extra={"action": "redis.away"})
