"""What one process remembers of a token endpoint while no Redis does: `gate.lua` in Python, for the same answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from identity.refresh.line import LATE, UNUSED_TURNS, Line, Who


@dataclass(kw_only=True)
class EndpointState:
    """The pace, pause and breaker of one token endpoint; each field says what that field of the Redis hash says.

    Times are microseconds of one clock, handed in as *now*.
    """

    due: int = 0
    held: int = 0
    failures: int = 0
    opened: int = 0
    open: int | None = None
    probe: int = 0
    seen: int = 0
    line: Line = field(default_factory=Line)

    def look(self, now: int, *, interval: int, burst: int, fewest: int, who: Who) -> int:
        """How long to wait before a request; 0: it may go now. Nothing is counted, though *who* takes a place.

        *burst* requests may come at once; *fewest* where the most is left to others: all in line may go by then.
        """
        self._see(now)
        shut = max(self.held, self.probe)
        shut = shut if self.open is None else max(shut, self.open)
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

    def failed(self, now: int, *, threshold: int, first: int, longest: int) -> None:
        """The endpoint failed. The last straw, or a failed probe, opens the breaker, for longer each time."""
        self._see(now)
        self.failures += 1
        probing = self.open is not None and self.open <= now
        if probing or (self.open is None and self.failures >= threshold):
            self.opened += 1
            self.open, self.probe = now + min(first * 2 ** (self.opened - 1), longest), 0

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
