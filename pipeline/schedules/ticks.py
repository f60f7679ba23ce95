"""Detects a beat that no longer ticks, so that it can be restarted."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

#: A tick that fires the slots of very many schedules may take minutes; one that hangs never returns.
STUCK_AFTER = timedelta(minutes=10)


class Ticks:
    """The ticks of one process.

    Before the first has ended, a beat is not ready but not stuck either: its ledger may be away.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at: float | None = None

    def ended(self) -> None:
        """Note the end of a tick, whatever its result."""
        self._at = self._monotonic()

    def have_begun(self) -> bool:
        return self._at is not None

    def is_well(self, within: timedelta = STUCK_AFTER) -> bool:
        return self._at is None or self._monotonic() - self._at <= within.total_seconds()
