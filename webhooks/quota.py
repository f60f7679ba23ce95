"""Rate limits for requests and deliveries, counted in Redis; per process while Redis is unavailable.

Only verified deliveries count. Deliveries of installations that no tenant has are counted separately, since anybody may
install a public app: neither forgers nor strangers use up a sender's quota. Signals are never limited: a revocation
must not wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import redis
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import RateLimiter, SlidingWindowCounterRateLimiter

from identity.cooldown import Cooldown, Turn
from identity.metrics import REDIS_FAILURES
from pipeline.model import RatedTenant
from webhooks import problems
from webhooks.once_a_minute import OnceAMinute
from webhooks.problems import Problem

log = logging.getLogger(__name__)

WINDOW = timedelta(minutes=1)
AWAY = timedelta(seconds=10)  # until a failed Redis is tried again: requests must not wait for one that hangs
# Seconds, for each connect and each reply, and for all calls of one count together. A few milliseconds are usual, and
# Slack tells a person after three seconds that a command failed.
PATIENCE = 0.25


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The state of one quota after this request."""

    allowed: bool
    limit: int
    remaining: int
    resets_in: int  # whole seconds

    def check(self, too_many: str) -> None:
        """Raise Problem if the quota is exceeded; *too_many* is the detail."""
        if not self.allowed:
            raise Problem(problems.TOO_MANY, too_many, retry_after=timedelta(seconds=self.resets_in))


class Counts(Protocol):
    """Per-minute request counts by key. Implemented by `Quota`."""

    def spend(self, key: str, own: int | None = None) -> Spent: ...


class SharedCounts:
    """Counters in Redis, shared by all processes. All quotas of a process share one circuit breaker.

    After a failure, a timeout or two slow replies in a row, a single request probes Redis again after a while. All
    others count locally until it answers in time.
    """

    def __init__(self, client: redis.Redis, *, prefix: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool = client.connection_pool
        storage = RedisStorage("redis://", connection_pool=pool, key_prefix=f"{prefix}quota", wrap_exceptions=True)
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._monotonic = monotonic
        self._cooldown = Cooldown(AWAY, monotonic=monotonic)
        self._slow = False  # whether the last reply was slow, or missing; one slow reply may be a pause of this machine

    @classmethod
    def at(cls, url: str, *, prefix: str, monotonic: Callable[[], float] = time.monotonic) -> SharedCounts:
        """Create it with its own client, whose timeouts are as short as a request can wait."""
        client = redis.Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        return cls(client, prefix=prefix, monotonic=monotonic)

    def spend(self, item: RateLimitItem, of: str, key: str, *, stated: bool = True) -> Spent | None:
        """Count one request of *key*; None: Redis is unavailable."""
        if (turn := self._cooldown.turn()) is None:
            return None
        began = self._monotonic()
        try:
            spent = _count(self._limiter, item, of, key, stated=stated)
        except StorageError as error:
            # As SharedByRedis does: only a new connection leaves a node that a planned failover has demoted. A slow
            # reply keeps its connection: a probe over a new one, with its handshakes, could be slow each time.
            self._pool.disconnect(inuse_connections=False)
            self._fail(turn, type(error.storage_error).__name__)
            return None
        slow, before = self._monotonic() - began > PATIENCE, self._slow
        self._slow = slow
        if slow and before:
            self._fail(turn, "slow")
        elif self._cooldown.succeeded(turn):
            log.info("quotas are counted by all processes together again", extra={"action": "quota.together"})
        return spent

    def _fail(self, turn: Turn, why: str) -> None:
        REDIS_FAILURES.inc()
        self._slow = True  # so that a slow trial does not end the outage
        if self._cooldown.failed(turn):
            log.warning("quotas are counted by each process alone", extra={"action": "quota.alone", "error": why})


class _PerMinute(RateLimitItemPerMinute):
    """A rate that keeps its key's window when it changes: a lower one also counts what already came in this minute."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return "/".join([self.namespace, *map(str, identifiers)])


class Quota:
    """Requests per minute for each key, in a sliding window; *of* names the kind of key. Shared by all threads."""

    def __init__(self, per_minute: int, shared: SharedCounts | None, *, of: str = "key") -> None:
        self._item = _PerMinute(per_minute)
        self._of = of
        self._shared = shared
        self._own: RateLimiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def spend(self, key: str, own: int | None = None) -> Spent:
        """Count one request of *key*, against its *own* rate if it has one."""
        return self._spend(key, own, stated=True)

    def refusal(self, key: str, own: int | None = None) -> Spent | None:
        """Count one request of *key*; return the state only if the quota is exceeded, which is faster than `spend`."""
        spent = self._spend(key, own, stated=False)
        return None if spent.allowed else spent

    def _spend(self, key: str, own: int | None, *, stated: bool) -> Spent:
        item = self._item if own is None else _PerMinute(own)
        spent = self._shared.spend(item, self._of, key, stated=stated) if self._shared is not None else None
        return spent or _count(self._own, item, self._of, key, stated=stated)


def _count(limiter: RateLimiter, item: RateLimitItem, of: str, key: str, *, stated: bool) -> Spent:
    """Count one request; unless *stated*, do not ask what remains after an allowed one."""
    allowed = limiter.hit(item, of, key)
    if allowed and not stated:
        return Spent(allowed=True, limit=item.amount, remaining=0, resets_in=0)  # the last two are not asked for
    stats = limiter.get_window_stats(item, of, key)
    resets_in = max(1, min(round(stats.reset_time - time.time() + 0.5), round(WINDOW.total_seconds())))
    return Spent(allowed=allowed, limit=item.amount, remaining=stats.remaining, resets_in=resets_in)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Rate limits for deliveries per tenant and, unless None, per provider connection.

    *nobodys*: limits how many deliveries of a connection are stored whose installation no tenant has.
    """

    tenant: Quota
    nobodys: Quota
    connection: Quota | None
    told: OnceAMinute = field(default_factory=OnceAMinute)

    @classmethod
    def of(cls, connection: int | None, tenant: int, shared: SharedCounts | None) -> Rates:
        """Build limits per minute. The limit for nobody's deliveries is the tenant's."""
        return cls(
            tenant=Quota(tenant, shared, of="tenant"),
            nobodys=Quota(tenant, shared, of="nobodys"),
            connection=None if connection is None else Quota(connection, shared, of="connection"),
        )

    def admit(self, connection: str, tenant: RatedTenant | None) -> bool:
        """Count one verified delivery; return True if it is to be stored. Raises Problem over the limit.

        Deliveries of nobody (*tenant* is None) over their limit are dropped but not refused: a sender that sees
        failures would disable the app for everyone, and GitHub's would be redelivered.
        """
        if tenant is None:  # these do not count against the connection's limit, which tenants share
            return self.nobodys.refusal(connection) is None
        for what, over in self._counted(connection, tenant):
            if over is not None:
                self._tell(connection, tenant.id if what == "tenant" else None, over.limit)
                over.check(f"This {what} takes {over.limit} deliveries a minute. Send it again after Retry-After.")
        return True

    def _tell(self, connection: str, tenant: str | None, limit: int) -> None:
        """Log the limited tenant, or None for the connection: a delivery that is turned away leaves no other trace."""
        if self.told.is_due((connection, tenant)):
            where = {"connection": connection, "tenant": tenant, "limit": limit}
            log.warning("deliveries are over a rate and turned away", extra={"action": "delivery.limited", **where})

    def _counted(self, connection: str, tenant: RatedTenant) -> Iterator[tuple[str, Spent | None]]:
        # The tenant's limit first: a delivery over it must not use up the connection's, which other tenants share.
        yield "tenant", self.tenant.refusal(tenant.id, tenant.rate)
        if self.connection is not None:
            yield "provider connection", self.connection.refusal(connection)
