"""One process's state of a token endpoint while Redis is unreachable: `gate.lua` in Python, with equal answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from identity.breaker import Breaker, BreakerState
from identity.token_endpoint.line import LATE, UNUSED_TURNS, Line, Waiter


@dataclass(kw_only=True)
class EndpointState(BreakerState):
    """The pace, pause and breaker of one token endpoint."""

    due: int = 0
    held: int = 0
    line: Line = field(default_factory=Line)

    @property
    def last_date(self) -> int:
        """The latest time that this state names."""
        return max(self.seen, self.due, self.shut, self.line.back)

    @property
    def shut(self) -> int:
        """The time until which nothing passes, whatever the pace: the endpoint asked for a pause, or its breaker."""
        return max(self.held, self.until)

    def look(self, now: int, *, interval: int, burst: int, fewest: int, who: Waiter) -> int:
        """Return how long to wait before a request, 0 if it may go now. Counts nothing, but *who* takes a place.

        *burst* is allowed to this caller, *fewest* to one that leaves most to others: by then all in line may go.
        """
        free = max(max(self.due, now) - (burst - 1) * interval, self.shut)
        unused = now - max(self.due - (fewest - 1) * interval, self.shut) >= LATE + UNUSED_TURNS * interval
        return self.line.wait(who, now, free=free, interval=interval, unused=unused)

    def enter(self, now: int, *, interval: int, burst: int, fewest: int, probe: int, who: Waiter) -> int:
        """Return how long to wait before a request; 0 if it may go now and is counted."""
        wait = self.look(now, interval=interval, burst=burst, fewest=fewest, who=who)
        if wait == 0:
            self.line.leave(who)
            self.due = max(self.due, now) + interval
            if self.open is not None:
                self.probe = now + probe
        return wait

    def answered(self) -> None:
        """Close the breaker: the endpoint works."""
        self.failures, self.opened, self.open, self.probe = 0, 0, None, 0

    def failed(self, now: int, breaker: Breaker, *, took: int) -> None:
        """Count the failure of a request that was sent *took* ago.

        If it was sent before the breaker's cooling was over, it is no probe, and its failure says nothing new.
        """
        if self.open is None or self.open <= now - took:
            self.fail(now, breaker)

    def back(self) -> None:
        """Let another request be the probe: one that had entered was not sent."""
        self.probe = 0

    def pause(self, now: int, duration: int) -> None:
        """Close the endpoint for the pause that it asked for."""
        self.held = max(self.held, now + duration)

    def see(self, now: int) -> None:
        """Read the clock. If it was set back, shift future times by the same amount."""
        if (set_back := self.seen - now) > 0:
            self.due, self.held, self.probe = self.due - set_back, self.held - set_back, self.probe - set_back
            self.open = None if self.open is None else self.open - set_back
            self.line = Line()  # waiting callers come back as told and get a new place
        self.seen = now
