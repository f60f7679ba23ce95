"""What one process remembers of an upstream's host while no Redis does: `breaker.lua` in Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from identity.breaker import Breaker, BreakerState

_MICROSECOND = timedelta(microseconds=1)
_FORGOTTEN = timedelta(minutes=15) // _MICROSECOND  # so long after its last date, what is remembered is old, too


@dataclass(frozen=True, kw_only=True)
class HostBreaker(Breaker):
    """When a failing host is left alone, for how long, and how those who wait for it come back."""

    look: timedelta = timedelta(seconds=5)  # who comes during a probe, which is mostly over in a moment, looks again
    apart: timedelta = timedelta(milliseconds=50)  # the places of a line
    line: timedelta = timedelta(hours=1)  # at most: the line begins anew behind it


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A call may go now, and what its end will mean as far as it is known before."""

    at: float = field(default=0.0, compare=False)  # when, by this process's clock
    known: bool = False  # something is remembered of the host, which a good answer ends
    last_straw: bool = False  # if it fails, the host is taken for away
    own: bool = False  # not even so, where that may be the request's own fault: it would be this job's again

    def meets_outage(self, *, may_be_own: bool) -> bool:
        """Whether its failure is put down to an outage."""
        return self.last_straw and not (may_be_own and self.own)


@dataclass(kw_only=True)
class HostState(BreakerState):
    """One host, as one tenant met it, or as all did. It has no clock that is set back."""

    last: str | None = None
    since: int | None = None  # when it opened for the first time in that row
    prober: str | None = None
    line: int = 0
    seen: int = 0

    def forgotten(self, now: int) -> bool:
        """Whether it says nothing any more."""
        return now > max(self.seen, self.until, self.line) + _FORGOTTEN

    def wait(self, now: int, breaker: HostBreaker) -> int:
        """How long nobody is to look: it is open, or a probe is on its way."""
        if self.open is not None and self.open > now:
            return self.open - now
        return max(min(self.until - now, breaker.look // _MICROSECOND), 0)

    def place(self, now: int, wait: int, breaker: HostBreaker) -> int:
        """A place in the line that begins after *wait*: who waits for one moment comes one after the other."""
        first = now + wait
        at = max(self.line, first)
        if at - first > breaker.line // _MICROSECOND:
            at = first
        self.line = at + breaker.apart // _MICROSECOND
        return at - now

    def fail_for(self, who: str, now: int, breaker: Breaker, *, job: str, same: bool) -> None:
        """A failure of *who*. While it is open, what fails beside the probe was on its way before, and counts not."""
        if self.open is not None and self.prober != job:
            return
        self.last = who
        if self.fail(now, breaker, same=same):
            self.since = now if self.since is None else self.since
            self.prober = None

    def away_for(self, now: int) -> int:
        """How long it has been open without a break; 0: it is not, or a call may find out at this moment."""
        return now - (self.since or now) if self.open is not None and self.open > now else 0

    def is_last_straw(self, who: str, breaker: Breaker) -> bool:
        """Whether a failure now, of *who*, leaves it open."""
        return self.open is not None or (self.last != who and self.failures + 1 >= breaker.threshold)


@dataclass(kw_only=True)
class States:
    """The two that a call passes: *whose* is its tenant's, *host* is of all tenants together."""

    whose: HostState
    host: HostState

    def enter(self, now: int, breaker: HostBreaker, *, job: str, tenant: str) -> int:
        """How long to wait before a call; else what is known, as a number. After the cooling it is the probe."""
        wait = self._longest(now, breaker)
        if wait > 0:
            return self.stand(now, wait, breaker)
        if self.whose == self.host == HostState():
            return 0
        straw = self.whose.is_last_straw("", breaker) or self.host.is_last_straw(tenant, breaker)
        for state in (self.whose, self.host):
            if state.open is not None:
                state.probe, state.prober = now + breaker.probe // _MICROSECOND, job
        return -1 - 2 * straw - 4 * self._is_own(job)

    def stand(self, now: int, wait: int, breaker: HostBreaker) -> int:
        """A place in the tenant's line. The tenants' lines stand beside each other, and begin one after the other."""
        begins = 0
        if self.whose.line < now + wait and self.whose.wait(now, breaker) < wait:
            begins = self.host.place(now, wait, breaker) - wait
        return self.whose.place(now, wait + begins, breaker)

    def back(self, *, job: str) -> int:
        """What went through was not sent after all: if it was the probe, another may be."""
        for state in (self.whose, self.host):
            if state.prober == job:
                state.probe, state.prober = 0, None
        return 0

    def failed(self, now: int, breaker: HostBreaker, *, job: str, tenant: str, may_be_own: bool) -> int:
        """How long to wait after a failure; 0: the host is not taken for away, or it may be that job's own fault."""
        own = may_be_own and self._is_own(job)
        self.whose.fail_for(job, now, breaker, job=job, same=own)
        self.host.fail_for(tenant, now, breaker, job=job, same=own or self.host.last == tenant)
        return 0 if own else self._longest(now, breaker)

    def away_for(self, now: int) -> int:
        """How long the host has been away without a break, as far as calls could tell."""
        return max(self.whose.away_for(now), self.host.away_for(now))

    def _is_own(self, job: str) -> bool:
        """Of a failure that may be the request's own: it is this job's again, and nobody says that the host is away."""
        return self.whose.last == job and self.host.open is None

    def _longest(self, now: int, breaker: HostBreaker) -> int:
        return max(self.whose.wait(now, breaker), self.host.wait(now, breaker))
