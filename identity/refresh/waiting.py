"""The wait of one `Coordinator.refresh` caller, and its limit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta


class Waiting:
    """Measures a caller's wait for its turn or for another's refresh; its own refresh does not count."""

    def __init__(self, monotonic: Callable[[], float], *, at_most: timedelta) -> None:
        self._monotonic = monotonic
        self._began = monotonic()
        self._gives_up = self._began + at_most.total_seconds()
        self._over: float | None = None

    def over(self) -> None:
        """Stop the wait: the caller's turn has come."""
        self._over = self._monotonic()

    def goes_on(self) -> None:
        """Resume the wait as if it had never stopped: the caller's turn had not come after all."""
        self._over = None

    def left(self) -> float:
        """Return the seconds it may still wait; at zero or below it gives up."""
        return self._gives_up - self._monotonic()

    def seconds(self) -> float:
        """Return the seconds waited."""
        return (self._monotonic() if self._over is None else self._over) - self._began
