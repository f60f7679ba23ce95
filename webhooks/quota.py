"""How many requests and deliveries may come in a minute, counted in Redis; by each process alone while that is away.

Of deliveries only what was verified is counted. What comes from an installation that no tenant has is counted apart,
since anybody may install a public app: neither forgers nor strangers use up what a sender may send. Signals always come
in: a revocation must not wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Protocol, TypeVar

import redis
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import RateLimiter, SlidingWindowCounterRateLimiter

from webhooks import problems
from webhooks.problems import Problem

log = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW = timedelta(minutes=1)
AWAY = 10.0  # seconds until a Redis that failed is asked again: requests must not wait for one that hangs
# Seconds that a request waits for it at most, once to connect and once for each of two answers: a few milliseconds are
# usual, and a person at Slack is told after three seconds that a command failed.
PATIENCE = 0.25


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


class SharedCounts:
    """Redis, in which all processes count. One for all quotas of a process, so that they know together that it is away.

    Once it has failed or hung, one request asks it again after a while, and the others do without until it answers.
    """

    def __init__(self, client: redis.Redis, *, prefix: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        pool = client.connection_pool
        storage = RedisStorage("redis://", connection_pool=pool, key_prefix=f"{prefix}quota", wrap_exceptions=True)
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._again: float | None = None  # when it is asked again; None: it answers

    @classmethod
    def at(cls, url: str, *, prefix: str, monotonic: Callable[[], float] = time.monotonic) -> SharedCounts:
        """With a client of its own, which waits for no longer than a request can."""
        client = redis.Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        return cls(client, prefix=prefix, monotonic=monotonic)

    def ask(self, count: Callable[[RateLimiter], T]) -> T | None:
        """What *count* makes of it; None: it is away."""
        if not self._is_asked():
            return None
        try:
            counted = count(self._limiter)
        except StorageError as error:
            self._again = self._monotonic() + AWAY
            what = {"action": "quota.alone", "error": type(error.storage_error).__name__}
            log.warning("quotas are counted by each process alone", extra=what)
            return None
        self._again = None
        return counted

    def _is_asked(self) -> bool:
        with self._lock:
            if self._again is not None:
                if (now := self._monotonic()) < self._again:
                    return False
                self._again = now + AWAY  # whoever comes while this one asks does not wait as well
            return True


class Quota:
    """Requests a minute of each key, in a sliding window; *of* says what keys are. One for all threads of a process."""

    def __init__(self, per_minute: int, shared: SharedCounts | None, *, of: str = "key") -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._of = of
        self._shared = shared
        self._own: RateLimiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def spend(self, key: str) -> Spent:
        """Count one request of *key*."""
        count = partial(self._count, key=key)
        spent = self._shared.ask(count) if self._shared is not None else None
        return spent or count(self._own)

    def _count(self, limiter: RateLimiter, key: str) -> Spent:
        allowed = limiter.hit(self._item, self._of, key)
        stats = limiter.get_window_stats(self._item, self._of, key)
        resets_in = max(1, min(round(stats.reset_time - time.time() + 0.5), round(WINDOW.total_seconds())))
        return Spent(allowed=allowed, limit=self._item.amount, remaining=stats.remaining, resets_in=resets_in)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How many deliveries are taken through a provider connection and for a tenant; None: as many as come.

    *nobodys*: how many of a connection are stored whose installation no tenant has.
    """

    connection: Counts | None = None
    tenant: Counts | None = None
    nobodys: Counts | None = None

    @classmethod
    def of(cls, connection: int | None, tenant: int | None, shared: SharedCounts | None) -> Rates:
        """So many a minute; of nobody's as many as of a tenant's, or of the connection's where that has no rate."""
        counts = {"connection": connection, "tenant": tenant, "nobodys": tenant or connection}
        return cls(**{of: Quota(rate, shared, of=of) for of, rate in counts.items() if rate is not None})

    def admit(self, connection: str, tenant: Callable[[], str | None]) -> bool:
        """Count one verified delivery; whether it is to be stored. Raises Problem if that was too many.

        *tenant* is asked for only if it counts. Nobody's beyond their rate are neither stored nor refused: a sender
        would turn the app off for all whose deliveries fail, and GitHub's would be asked for again.
        """
        if self.tenant is None and self.nobodys is None:
            whose = None
        elif (whose := tenant()) is None and self.nobodys is not None:
            # And of the connection's, which others share, nothing.
            return self.nobodys.spend(connection).allowed
        for what, spent in self._spent(connection, whose):
            spent.check(f"This {what} takes {spent.limit} deliveries a minute. Send it again after Retry-After.")
        return True

    def _spent(self, connection: str, tenant: str | None) -> Iterator[tuple[str, Spent]]:
        # The tenant's comes first: what it may not send must not use up what others send through the same connection.
        if self.tenant is not None and tenant is not None:
            yield "tenant", self.tenant.spend(tenant)
        if self.connection is not None:
            yield "provider connection", self.connection.spend(connection)
