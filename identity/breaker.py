"""A breaker: what fails again and again is left alone for a while, and then one probe looks whether it is back.

`identity/refresh/gate.lua` and `pipeline/throttle/breaker.lua` have the same between what each of them does besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from identity.backoff import doubled

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """When something that fails is left alone, and for how long. Then one probe goes, and the others wait for it."""

    threshold: int = 5  # failures in a row: no connection, no answer, or 5xx
    first: timedelta = timedelta(seconds=10)
    longest: timedelta = timedelta(minutes=5)  # every opening in a row lasts twice as long as the one before
    probe: timedelta = timedelta(seconds=30)  # longer than a call: a probe that died is not waited for any longer


@dataclass(kw_only=True)
class BreakerState:
    """How one breaker stands; each field says what that field of the Redis hash says.

    Times are microseconds of one clock, handed in as *now*.
    """

    failures: int = 0
    opened: int = 0
    open: int | None = None
    probe: int = 0

    @property
    def until(self) -> int:
        """Nobody goes before: it is open, or a probe is on its way."""
        return self.probe if self.open is None else max(self.open, self.probe)

    def fail(self, now: int, breaker: Breaker, *, same: bool = False) -> bool:
        """A failure. The last straw, or a failed probe, opens it: whether it did. The *same* again is no straw."""
        if not same:
            self.failures += 1
        probed = self.open is not None and self.open <= now
        if not probed and (self.open is not None or self.failures < breaker.threshold):
            return False
        cooling = breaker.first
        if not same:
            self.opened += 1
            cooling = doubled(breaker.first, self.opened - 1, longest=breaker.longest)
        self.open, self.probe = now + cooling // _MICROSECOND, 0
        return True
