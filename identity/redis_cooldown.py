"""The cooldown of one Redis: told once per process, however many objects share its client."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from identity.cooldown import Cooldown, Turn
from identity.metrics import REDIS_FAILURES

log = logging.getLogger(__name__)


class RedisCooldown(Cooldown):
    """A cooldown that counts the failures of Redis, and logs the beginning and the end of an outage."""

    def __init__(
        self, *, lasts: timedelta = timedelta(seconds=5), monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(lasts, monotonic=monotonic)
        self._lasts = lasts

    def answered(self, turn: Turn) -> None:
        """Redis answered: all may ask it again."""
        if self.succeeded(turn):
            log.info("Redis answers again", extra={"action": "redis.back"})

    def missed(self, turn: Turn, error: Exception) -> None:
        """Redis did not answer, or refuses everybody."""
        REDIS_FAILURES.inc()
        if self.failed(turn):
            lasts, what = self._lasts.total_seconds(), type(error).__name__
            log.warning("Redis is left alone for %g s: %s", lasts, what, extra={"action": "redis.away"})
