"""How many requests and deliveries may come in a minute, counted in Redis; by each process alone while that is away.

Of deliveries only what was verified is counted, so a stranger cannot use up what a sender may send. Signals always
come in: a revocation must not wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import redis
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import RateLimiter, SlidingWindowCounterRateLimiter

from webhooks import problems
from webhooks.problems import Problem

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

    def check(self, too_many: str) -> None:
        """Raise the Problem of one too many; *too_many* says of what."""
        if not self.allowed:
            raise Problem(problems.TOO_MANY, too_many, retry_after=timedelta(seconds=self.resets_in))


class Counts(Protocol):
    """Requests a minute of each key. `Quota` implements it."""

    def spend(self, key: str) -> Spent: ...


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


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How many deliveries are taken through a provider connection and for a tenant; None: as many as come."""

    connection: Counts | None = None
    tenant: Counts | None = None

    def admit(self, connection: str, tenant: Callable[[], str | None]) -> None:
        """Count one verified delivery. Raises Problem if that was too many. *tenant* is asked for only if it counts."""
        for what, spent in self._spent(connection, tenant):
            spent.check(f"This {what} takes {spent.limit} deliveries a minute. Send it again after Retry-After.")

    def _spent(self, connection: str, tenant: Callable[[], str | None]) -> Iterator[tuple[str, Spent]]:
        # The tenant's comes first: what it may not send must not use up what others send through the same connection.
        if self.tenant is not None and (whose := tenant()) is not None:
            yield "tenant", self.tenant.spend(whose)
        if self.connection is not None:
            yield "provider connection", self.connection.spend(connection)
