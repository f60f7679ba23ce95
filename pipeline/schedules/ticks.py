"""Whether a beat still comes round, for whoever ends one that does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

#: A tick that fires the slots of very many schedules may take minutes; one that hangs does so for good.
STUCK_AFTER = timedelta(minutes=10)


class Ticks:
    """Of one process. Before its first has ended, a beat is not ready, and not stuck: it waits for its ledger, say."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at: float | None = None

    def ended(self) -> None:
        """One is over, whatever came of it."""
        self._at = self._monotonic()

    def have_begun(self) -> bool:
        return self._at is not None

    def is_well(self, within: timedelta = STUCK_AFTER) -> bool:
        return self._at is None or self._monotonic() - self._at <= within.total_seconds()
