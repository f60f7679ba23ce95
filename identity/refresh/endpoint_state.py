"""What one process remembers of a token endpoint while no Redis does: `gate.lua` in Python, for the same answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from identity.breaker import Breaker, BreakerState
from identity.refresh.line import LATE, UNUSED_TURNS, Line, Who


@dataclass(kw_only=True)
class EndpointState(BreakerState):
    """The pace, pause and breaker of one token endpoint."""

    due: int = 0
    held: int = 0
    seen: int = 0
    line: Line = field(default_factory=Line)

    def look(self, now: int, *, interval: int, burst: int, fewest: int, who: Who) -> int:
        """How long to wait before a request; 0: it may go now. Nothing is counted, though *who* takes a place.

        *burst* requests may come at once; *fewest* where the most is left to others: all in line may go by then.
        """
        self._see(now)
        shut = max(self.held, self.until)
        free = max(max(self.due, now) - (burst - 1) * interval, shut)
        unused = now - max(self.due - (fewest - 1) * interval, shut) >= LATE + UNUSED_TURNS * interval
        return self.line.wait(who, now, free=free, interval=interval, unused=unused)

    def enter(self, now: int, *, interval: int, burst: int, fewest: int, probe: int, who: Who) -> int:
        """How long to wait before a request; 0: it may go now, and is counted."""
        wait = self.look(now, interval=interval, burst=burst, fewest=fewest, who=who)
        if wait == 0:
            self.line.leave(who)
            self.due = max(self.due, now) + interval
            if self.open is not None:
                self.probe = now + probe
        return wait

    def answered(self) -> None:
        """The endpoint works: the breaker closes."""
        self.failures, self.opened, self.open, self.probe = 0, 0, None, 0

    def failed(self, now: int, breaker: Breaker) -> None:
        """The endpoint failed."""
        self._see(now)
        self.fail(now, breaker)

    def pause(self, now: int, duration: int) -> None:
        """The endpoint asked for a pause: no request goes before its end."""
        self._see(now)
        self.held = max(self.held, now + duration)

    def _see(self, now: int) -> None:
        """Look at the clock. Where it was set back, what lay ahead lies as far ahead as before."""
        if (set_back := self.seen - now) > 0:
            self.due, self.held, self.probe = self.due - set_back, self.held - set_back, self.probe - set_back
            self.open = None if self.open is None else self.open - set_back
            self.line = Line()  # who waits comes back as told, and is given another place
        self.seen = now
