"""The breakers before upstreams' hosts: while one is away, jobs wait for it in the ledger, and single probes look.

A host has a breaker for each tenant that calls it, and one for all of them together, which only failures of different
tenants open: one tenant's requests cannot close a provider to others, and an outage is not found out by each tenant
anew. They are shared by all workers through Redis. Without Redis each process has its own.

Nobody sleeps at a breaker: who is told to wait comes back by `due_at`, each at a place of its own in its tenant's line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Self, Unpack
from urllib.parse import urlsplit

import redis

from identity.model import ProviderConnection
from identity.shared_by_redis import SharedByRedis, Sharing
from pipeline.throttle.breaker_state import HostBreaker, HostState, Passed, States

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What a job calls, and for whom."""

    provider: str
    host: (
        str  # with its port; whoever shares it shares its fate: a provider's API all tenants, a tenant's server itself
    )
    tenant: str
    job: str

    @classmethod
    def of(cls, through: ProviderConnection, *, tenant: str, job: str) -> Self:
        """What a call of that job's through a provider connection reaches."""
        return cls(provider=through.provider, host=urlsplit(through.api_url).netloc.lower(), tenant=tenant, job=job)

    @property
    def keys(self) -> tuple[str, str]:
        """The names of what the tenant met at the host, and of what all did."""
        return f"{self.provider}:{self.host}/{self.tenant}", f"{self.provider}:{self.host}"


class Breakers(SharedByRedis):
    """Say when an upstream's host may be called."""

    script = files("pipeline.throttle").joinpath("breaker.lua").read_text()

    def __init__(
        self, client: redis.Redis | None, *, breaker: HostBreaker | None = None, **sharing: Unpack[Sharing]
    ) -> None:
        super().__init__(client, **sharing)
        self._breaker = breaker or HostBreaker()
        self._own: defaultdict[str, HostState] = defaultdict(HostState)
        self._failed: dict[str, float] = {}  # when this process was last told of a failure at a host, lately

    def enter(self, errand: Errand) -> timedelta | Passed:
        """Passed: call now. Otherwise how long to wait before asking again."""

        def alone(states: States, now: int) -> int:
            return states.enter(now, self._breaker, job=errand.job, tenant=errand.tenant)

        at = self._monotonic()
        told = self._ask(errand, "enter", self._breaker.probe, alone=alone)
        if told > 0:
            return timedelta(microseconds=told)
        said = max(-told - 1, 0)
        return Passed(at=at, known=told < 0, last_straw=bool(said & 2), own=bool(said & 4))

    def line(self, errand: Errand, *, after: timedelta) -> timedelta:
        """A place in the tenant's line for the host, for a reason of this process's, not before *after*."""

        def alone(states: States, now: int) -> int:
            return states.stand(now, after // _MICROSECOND, self._breaker)

        return timedelta(microseconds=self._ask(errand, "line", after, alone=alone))

    def away_for(self, errand: Errand) -> timedelta:
        """How long the host has been away without a break, as calls found; none: it may be back, as far as is known."""
        told = self._ask(errand, "away", alone=lambda states, now: states.away_for(now))
        return timedelta(microseconds=told)

    def knows(self, errand: Errand, passed: Passed) -> bool:
        """Whether an answer that has just come to what had *passed* is to be told: failures may be remembered.

        Those since it passed are this process's own alone, so that nobody is asked where all is well.
        """
        with self._lock:
            failed = self._failed.get(errand.keys[1])
        return passed.known or (failed is not None and failed >= passed.at)

    def answered(self, errand: Errand) -> None:
        """The host answered like something that works, whatever it said: the breakers close."""
        self._ask(errand, "answered", alone=lambda states, _: self._forget(errand))

    def back(self, errand: Errand) -> None:
        """What went through was not sent after all."""
        self._ask(errand, "back", alone=lambda states, _: states.back(job=errand.job))

    def failed(self, errand: Errand, *, may_be_own: bool) -> timedelta | None:
        """The host gave no connection, no answer, or a server's error. How long to wait, where it is taken for away.

        *may_be_own*: such an answer may be the request's own fault; of one job, only the first in a row counts.
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
            lately = now - self._breaker.probe.total_seconds()  # what passed before that has ended
            self._failed = {host: at for host, at in self._failed.items() if at > lately} | {host: now}

    def _ask(self, errand: Errand, what: str, *arguments: int | timedelta, alone: Callable[[States, int], int]) -> int:
        keys, breaker = [f"{self._prefix}upstream:{key}" for key in errand.keys], self._breaker
        always = breaker.apart, breaker.line, errand.job, errand.tenant, breaker.threshold, breaker.look
        told = self._together(keys, what, *always, *arguments)
        return self._by_itself(lambda now: self._alone(errand, alone, now)) if told is None else told

    def _forget(self, errand: Errand) -> int:
        for key in errand.keys:
            self._own.pop(key, None)
        return 0

    def _alone(self, errand: Errand, ask: Callable[[States, int], int], now: int) -> int:
        """What this process says by itself; what says nothing any more is not kept."""
        whose, host = errand.keys
        for key in errand.keys:
            if key in self._own and self._own[key].forgotten(now):
                del self._own[key]
        wait = ask(States(whose=self._own[whose], host=self._own[host]), now)
        for key in errand.keys:
            if self._own[key] == HostState():
                del self._own[key]
            else:
                self._own[key].seen = now
        return wait
