"""Circuit breaker: repeated failures open it for a while, then one half-open probe tests the other end.

`identity/token_endpoint/gate.lua` and `pipeline/throttle/breaker.lua` implement the same rules beside their other work.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from identity.backoff import doubled

_MICROSECOND = timedelta(microseconds=1)
_FORGOTTEN = timedelta(minutes=15) // _MICROSECOND  # state is stale this long after its last date
_SWEEP = timedelta(minutes=1) // _MICROSECOND


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """Thresholds and times of a circuit breaker.

    After each opening one probe goes. At a token endpoint other callers wait for its outcome or for *probe* to pass; at
    an upstream's host they look again sooner (`HostBreaker.look`). A later caller becomes the next probe.
    """

    threshold: int = 5  # consecutive failures: no connection, no answer, or 5xx
    first: timedelta = timedelta(seconds=10)
    longest: timedelta = timedelta(minutes=5)  # each consecutive opening lasts twice as long as the one before
    # A lost probe blocks nobody after this. It must be longer than a call takes: a host's breaker ignores the failure
    # of a probe that another has replaced.
    probe: timedelta = timedelta(seconds=30)


@dataclass(kw_only=True)
class BreakerState:
    """State of one circuit breaker; the fields are those of its Redis hash.

    Times are microseconds of one clock, passed in as *now*.
    """

    failures: int = 0
    opened: int = 0
    open: int | None = None
    probe: int = 0
    seen: int = 0  # when it was last asked

    @property
    def last_date(self) -> int:
        """The latest time that this state names."""
        return max(self.seen, self.until)

    def forgotten(self, now: int) -> bool:
        """True if this state is stale; in Redis it has expired by then."""
        return now > self.last_date + _FORGOTTEN

    @property
    def until(self) -> int:
        """The time until which no caller passes: the breaker is open, or a probe is in flight."""
        return self.probe if self.open is None else max(self.open, self.probe)

    def fail(self, now: int, breaker: Breaker, *, same: bool = False) -> bool:
        """Record a failure and return whether it opened the breaker: at the threshold, or because a probe failed.

        Callers record no failures of requests that were sent before the cooling was over. The *same* failure reported
        again does not count towards the threshold.
        """
        if not same:
            self.failures += 1
        if self.open is None and self.failures < breaker.threshold:
            return False
        cooling = breaker.first
        if not same:
            self.opened += 1
            cooling = doubled(breaker.first, self.opened - 1, longest=breaker.longest)
        self.open, self.probe = now + cooling // _MICROSECOND, 0
        return True


S = TypeVar("S", bound=BreakerState)


class OwnStates(Generic[S]):
    """The states that one process keeps by key while Redis is away, about as long as Redis would. Not thread-safe."""

    def __init__(self, new: type[S]) -> None:
        self._new = new
        self._states: dict[str, S] = {}
        self._swept = 0

    def at(self, key: str, now: int) -> S:
        """Return the state of *key*, a new one if there is none."""
        if now - self._swept >= _SWEEP:
            self._states = {each: state for each, state in self._states.items() if not state.forgotten(now)}
            self._swept = now
        return self._states.setdefault(key, self._new())

    def drop(self, key: str) -> None:
        """Forget the state of *key*, if there is one."""
        self._states.pop(key, None)
