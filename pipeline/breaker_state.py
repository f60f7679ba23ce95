"""What one process remembers of an upstream's host while no Redis does: `breaker.lua` in Python."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

_MICROSECOND = timedelta(microseconds=1)
_FORGOTTEN = timedelta(minutes=15) // _MICROSECOND  # so long after its last date, what is remembered is old, too


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """When a failing host is left alone, for how long, and how those who wait for it come back."""

    threshold: int = 5  # failures in a row
    first: timedelta = timedelta(seconds=10)
    longest: timedelta = timedelta(minutes=5)  # every opening in a row lasts twice as long as the one before
    probe: timedelta = timedelta(seconds=30)  # longer than a call: a probe that died is not waited for any longer
    apart: timedelta = timedelta(milliseconds=50)  # the places of the line
    line: timedelta = timedelta(hours=1)  # at most: the line begins anew behind it


@dataclass(kw_only=True)
class BreakerState:
    """One host, as one tenant met it, or as all did; each field says what that field of the Redis hash says.

    Times are microseconds of one clock, handed in as *now*. It has no clock that is set back.
    """

    failures: int = 0
    last: str | None = None
    opened: int = 0
    open: int | None = None
    probe: int = 0
    line: int = 0
    seen: int = 0

    def forgotten(self, now: int) -> bool:
        """Whether it says nothing any more."""
        return now > max(self.seen, self.open or 0, self.probe, self.line) + _FORGOTTEN

    def wait(self, now: int) -> int:
        """How long it lets nothing through: it is open, or a probe is on its way."""
        if self.open is None:
            return 0
        return max(self.open - now if self.open > now else self.probe - now, 0)

    def place(self, now: int, wait: int, breaker: Breaker) -> int:
        """A place in the line that begins after *wait*: who waits for one moment comes one after the other."""
        first = now + wait
        at = max(self.line, first)
        if at - first > breaker.line // _MICROSECOND:
            at = first
        self.line = at + breaker.apart // _MICROSECOND
        return at - now

    def fail(self, now: int, who: str, breaker: Breaker, *, same: bool) -> None:
        """A failure of *who*. The last straw, or a failed probe, opens the breaker; the *same* again is no straw."""
        self.last = who
        if not same:
            self.failures += 1
        probed = self.open is not None and self.open <= now
        if probed or (self.open is None and self.failures >= breaker.threshold):
            cooling = breaker.first
            if not same:
                self.opened += 1
                cooling = min(breaker.first * 2 ** min(self.opened - 1, 20), breaker.longest)
            self.open, self.probe = now + cooling // _MICROSECOND, 0


@dataclass(kw_only=True)
class States:
    """The two that a call passes: *whose* is its tenant's, *host* is of all tenants together."""

    whose: BreakerState
    host: BreakerState

    def enter(self, now: int, breaker: Breaker) -> int:
        """How long to wait before a call; 0: it may go now. Where it is open no longer, that is the probe."""
        wait, of = self._longest(now)
        if wait > 0:
            return of.place(now, wait, breaker)
        for state in (self.whose, self.host):
            if state.open is not None:
                state.probe = now + breaker.probe // _MICROSECOND
        return 0

    def back(self) -> int:
        """What went through was not sent after all: another may be the probe."""
        self.whose.probe = self.host.probe = 0
        return 0

    def failed(self, now: int, breaker: Breaker, *, job: str, tenant: str, may_be_own: bool) -> int:
        """How long to wait after a failure; 0: the host is not taken for away, or it may be that job's own fault."""
        own = may_be_own and self.whose.last == job
        self.whose.fail(now, job, breaker, same=own)
        self.host.fail(now, tenant, breaker, same=own or self.host.last == tenant)
        return 0 if own else self._longest(now)[0]

    def _longest(self, now: int) -> tuple[int, BreakerState]:
        ours, of_all = self.whose.wait(now), self.host.wait(now)
        return max(ours, of_all), self.whose if ours > of_all else self.host
