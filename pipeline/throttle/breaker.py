"""Circuit breakers for upstreams' hosts: while a host is away, jobs wait in the ledger and single probes test it.

A host has one breaker per calling tenant, and one for all tenants together that opens only on failures of different
tenants. So one tenant's requests cannot cut off a provider for others, and not every tenant has to discover an outage
itself. All workers share the breakers through Redis; without Redis each process has its own.

Nobody sleeps at a breaker: a job that must wait gets a place in its tenant's line, and comes back at that time by
`due_at`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Self, Unpack
from urllib.parse import urlsplit

import redis

from identity.breaker import OwnStates
from identity.model import ProviderConnection
from identity.shared_by_redis import SharedByRedis, Sharing
from pipeline.throttle.breaker_state import HostBreaker, HostState, Passed, States

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Errand:
    """A job's call: its target and its tenant."""

    provider: str
    # With its port. Callers of the same host share its fate: all tenants for a provider's API, one for its own server.
    host: str
    tenant: str
    job: str

    @classmethod
    def of(cls, through: ProviderConnection, *, tenant: str, job: str) -> Self:
        """Return the errand of a job's call through a provider connection."""
        return cls(provider=through.provider, host=urlsplit(through.api_url).netloc.lower(), tenant=tenant, job=job)

    @property
    def keys(self) -> tuple[str, str]:
        """The keys of the tenant's breaker for the host and of the host's breaker for all tenants."""
        return f"{self.provider}:{self.host}/{self.tenant}", f"{self.provider}:{self.host}"


class Breakers(SharedByRedis):
    """Decides when an upstream's host may be called."""

    script = files("pipeline.throttle").joinpath("breaker.lua").read_text()

    def __init__(
        self, client: redis.Redis | None, *, breaker: HostBreaker | None = None, **sharing: Unpack[Sharing]
    ) -> None:
        super().__init__(client, **sharing)
        self._breaker = breaker or HostBreaker()
        self._own = OwnStates(HostState)
        self._failed: dict[str, float] = {}  # when this process was last told of a failure, by host; only recent ones

    def enter(self, errand: Errand) -> timedelta | Passed:
        """Return Passed to call now; otherwise the time to wait before asking again."""

        def alone(states: States, now: int) -> int:
            return states.enter(now, self._breaker, job=errand.job, tenant=errand.tenant)

        at = self._monotonic()
        told = self._ask(errand, "enter", self._breaker.probe, alone=alone)
        if told > 0:
            return timedelta(microseconds=told)
        said = max(-told - 1, 0)
        return Passed(at=at, known=told < 0, last_straw=bool(said & 2), own=bool(said & 4))

    def line(self, errand: Errand, *, after: timedelta) -> timedelta:
        """Take a place in the tenant's line, for a reason of this process's own. Return the wait, at least *after*."""

        def alone(states: States, now: int) -> int:
            return states.stand(now, after // _MICROSECOND, self._breaker)

        return timedelta(microseconds=self._ask(errand, "line", after, alone=alone))

    def away_for(self, errand: Errand) -> timedelta:
        """Return how long calls have found the host away without a break; zero: it may be back."""
        told = self._ask(errand, "away", alone=lambda states, now: states.away_for(now))
        return timedelta(microseconds=told)

    def knows(self, errand: Errand, passed: Passed) -> bool:
        """Return True if the breaker must be told of an answer to a call that *passed*, as failures may be remembered.

        For failures since then this looks only at this process's own, so that Redis is not asked while all is well.
        """
        with self._lock:
            failed = self._failed.get(errand.keys[1])
        return passed.known or (failed is not None and failed >= passed.at)

    def answered(self, errand: Errand) -> None:
        """Close the breakers: the host gave an answer that only a working host gives, whatever it said."""
        self._ask(errand, "answered", alone=lambda states, _: self._forget(errand))

    def back(self, errand: Errand) -> None:
        """Take back a pass whose call was not sent."""
        self._ask(errand, "back", alone=lambda states, _: states.back(job=errand.job))

    def failed(self, errand: Errand, *, may_be_own: bool) -> timedelta | None:
        """Note that the host gave no connection, no answer, or a server error. Return the wait if it counts as away.

        *may_be_own*: the request itself may be at fault, so only the first of a job's consecutive failures counts.
        """
        breaker = self._breaker

        def alone(states: States, now: int) -> int:
            return states.failed(now, breaker, job=errand.job, tenant=errand.tenant, may_be_own=may_be_own)

        self._note_failure(errand.keys[1])
        wait = self._ask(errand, "failed", breaker.first, breaker.longest, int(may_be_own), alone=alone)
        return timedelta(microseconds=wait) if wait else None

    def _note_failure(self, host: str) -> None:
        now = self._monotonic()
        with self._lock:
            lately = now - self._breaker.probe.total_seconds()  # calls that passed before that have ended
            self._failed = {host: at for host, at in self._failed.items() if at > lately} | {host: now}

    def _ask(self, errand: Errand, what: str, *arguments: int | timedelta, alone: Callable[[States, int], int]) -> int:
        keys, breaker = [f"{self._prefix}upstream:{key}" for key in errand.keys], self._breaker
        always = breaker.apart, breaker.line, errand.job, errand.tenant, breaker.threshold, breaker.look
        told = self._together(keys, what, *always, *arguments)
        return self._by_itself(lambda now: self._alone(errand, alone, now)) if told is None else told

    def _forget(self, errand: Errand) -> int:
        for key in errand.keys:
            self._own.drop(key)
        return 0

    def _alone(self, errand: Errand, ask: Callable[[States, int], int], now: int) -> int:
        """Ask this process's own states, and drop those that hold nothing."""
        whose, host = (self._own.at(key, now) for key in errand.keys)
        wait = ask(States(whose=whose, host=host), now)
        for key, state in zip(errand.keys, (whose, host), strict=True):
            if state == HostState():
                self._own.drop(key)
            else:
                state.seen = now
        return wait
