"""How long one caller of `Coordinator.refresh` waits, and how long it may."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta


class Waiting:
    """Until it is the caller's turn to refresh, another's refresh serves it, or it gives up: not while it refreshes."""

    def __init__(self, monotonic: Callable[[], float], *, at_most: timedelta) -> None:
        self._monotonic = monotonic
        self._began = monotonic()
        self._gives_up = self._began + at_most.total_seconds()
        self._over: float | None = None

    def over(self) -> None:
        """The caller's turn has come: its wait is over."""
        self._over = self._monotonic()

    def goes_on(self) -> None:
        """The caller's turn had not come, after all: the wait goes on, as if it had never stopped."""
        self._over = None

    def left(self) -> float:
        """The seconds it may still wait; none or less: it gives up."""
        return self._gives_up - self._monotonic()

    def seconds(self) -> float:
        """How long it waited."""
        return (self._monotonic() if self._over is None else self._over) - self._began
