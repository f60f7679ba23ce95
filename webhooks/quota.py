"""How many requests somebody may make, counted in Redis for all processes; by each process alone while that is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import redis
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import RateLimiter, SlidingWindowCounterRateLimiter

log = logging.getLogger(__name__)

WINDOW = timedelta(minutes=1)
AWAY = 10.0  # seconds until Redis is asked again: a request must not wait for one that hangs


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What is left to somebody after this request."""

    allowed: bool
    limit: int
    remaining: int
    resets_in: int  # whole seconds


class Quota:
    """Requests a minute of each key, in a sliding window; *of* says what keys are. One for all threads of a process."""

    def __init__(
        self,
        per_minute: int,
        shared: redis.Redis | None,
        *,
        prefix: str,
        of: str = "key",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._of = of
        self._shared: RateLimiter | None = None
        if shared is not None:
            pool = shared.connection_pool
            storage = RedisStorage("redis://", connection_pool=pool, key_prefix=f"{prefix}quota", wrap_exceptions=True)
            self._shared = SlidingWindowCounterRateLimiter(storage)
        self._own: RateLimiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._monotonic = monotonic
        self._away_until = 0.0

    def spend(self, key: str) -> Spent:
        """Count one request of *key*."""
        if self._shared is not None and self._monotonic() >= self._away_until:
            try:
                return self._count(self._shared, key)
            except StorageError as error:
                self._away_until = self._monotonic() + AWAY
                what = {"action": "quota.alone", "error": type(error.storage_error).__name__}
                log.warning("quotas are counted by each process alone", extra=what)
        return self._count(self._own, key)

    def _count(self, limiter: RateLimiter, key: str) -> Spent:
        allowed = limiter.hit(self._item, self._of, key)
        stats = limiter.get_window_stats(self._item, self._of, key)
        resets_in = max(1, min(round(stats.reset_time - time.time() + 0.5), round(WINDOW.total_seconds())))
        return Spent(allowed=allowed, limit=self._item.amount, remaining=stats.remaining, resets_in=resets_in)
