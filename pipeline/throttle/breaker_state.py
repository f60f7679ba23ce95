"""Breaker state in one process, for when Redis is away: `breaker.lua` in Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from identity.breaker import Breaker, BreakerState

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class HostBreaker(Breaker):
    """Settings for a failing host: when calls stop, for how long, and how the waiting jobs come back."""

    # retry interval for callers that arrive during a probe, which is usually over in a moment
    look: timedelta = timedelta(seconds=5)
    apart: timedelta = timedelta(milliseconds=50)  # interval between two places in a line
    line: timedelta = timedelta(hours=1)  # longest line; beyond it the line restarts at its front


@dataclass(frozen=True, kw_only=True)
class Passed:
    """Permission to call now, with the consequences of its outcome as far as they are known."""

    at: float = field(default=0.0, compare=False)  # when, on this process's clock
    known: bool = False  # there is state for the host that a good answer clears
    last_straw: bool = False  # a failure would make the host count as away
    own: bool = False  # except if the request itself may be at fault, as it would be this job's repeated failure

    def meets_outage(self, *, may_be_own: bool) -> bool:
        """True if a failure of this call is put down to an outage."""
        return self.last_straw and not (may_be_own and self.own)


@dataclass(kw_only=True)
class HostState(BreakerState):
    """One host as seen by one tenant, or by all. Its clock cannot be set back."""

    last: str | None = None
    since: int | None = None  # when it first opened in this outage
    prober: str | None = None
    line: int = 0

    @property
    def last_date(self) -> int:
        """The latest time that this state names."""
        return max(self.seen, self.until, self.line)

    def wait(self, now: int, breaker: HostBreaker) -> int:
        """Return how long no call may pass: the breaker is open, or a probe is under way."""
        if self.open is not None and self.open > now:
            return self.open - now
        return max(min(self.until - now, breaker.look // _MICROSECOND), 0)

    def place(self, now: int, wait: int, breaker: HostBreaker) -> int:
        """Return a place in the line that begins after *wait*; callers that arrive together get successive places."""
        first = now + wait
        at = max(self.line, first)
        if at - first > breaker.line // _MICROSECOND:
            at = first
        self.line = at + breaker.apart // _MICROSECOND
        return at - now

    def fail_for(self, who: str, now: int, breaker: Breaker, *, job: str, same: bool) -> None:
        """Count a failure of *who*.

        While the breaker is open, failures other than the probe's were sent earlier and do not count.
        """
        if self.open is not None and self.prober != job:
            return
        self.last = who
        if self.fail(now, breaker, same=same):
            self.since = now if self.since is None else self.since
            self.prober = None

    def away_for(self, now: int) -> int:
        """Return how long it has been open without a break; 0: it is closed, or a call may test it now."""
        return now - (self.since or now) if self.open is not None and self.open > now else 0

    def is_last_straw(self, who: str, breaker: Breaker) -> bool:
        """True if one more failure by *who* leaves it open."""
        return self.open is not None or (self.last != who and self.failures + 1 >= breaker.threshold)


@dataclass(kw_only=True)
class States:
    """The two breakers that a call passes: *whose* is its tenant's, *host* is the one of all tenants."""

    whose: HostState
    host: HostState

    def enter(self, now: int, breaker: HostBreaker, *, job: str, tenant: str) -> int:
        """Return how long to wait before a call, or what is known of the host as a number ≤ 0.

        After the cooling time this call becomes the probe.
        """
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
        """Return a place in the tenant's line. The tenants' lines run in parallel, with staggered starts."""
        begins = 0
        if self.whose.line < now + wait and self.whose.wait(now, breaker) < wait:
            begins = self.host.place(now, wait, breaker) - wait
        return self.whose.place(now, wait + begins, breaker)

    def back(self, *, job: str) -> int:
        """Take back a pass whose call was not sent; if it was the probe, another call may be."""
        for state in (self.whose, self.host):
            if state.prober == job:
                state.probe, state.prober = 0, None
        return 0

    def failed(self, now: int, breaker: HostBreaker, *, job: str, tenant: str, may_be_own: bool) -> int:
        """Return how long to wait after a failure; 0: the host does not count as away, or the job may be at fault."""
        own = may_be_own and self._is_own(job)
        self.whose.fail_for(job, now, breaker, job=job, same=own)
        self.host.fail_for(tenant, now, breaker, job=job, same=own or self.host.last == tenant)
        return 0 if own else self._longest(now, breaker)

    def away_for(self, now: int) -> int:
        """Return how long calls have found the host away without a break."""
        return max(self.whose.away_for(now), self.host.away_for(now))

    def _is_own(self, job: str) -> bool:
        """True if a failure now would be this job's again while the host's breaker is closed."""
        return self.whose.last == job and self.host.open is None

    def _longest(self, now: int, breaker: HostBreaker) -> int:
        return max(self.whose.wait(now, breaker), self.host.wait(now, breaker))
