"""Whether a Redis that failed is left alone: known once a process, however many objects ask it.

One that hangs costs whoever asks it a whole timeout. Known to each object alone, a step would pay it once for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta


class RedisCooldown:
    """The rest of one Redis. One for all threads, and for all objects that share the client."""

    def __init__(
        self, *, lasts: timedelta = timedelta(seconds=5), monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lasts = lasts.total_seconds()
        self._monotonic = monotonic
        self._until = float("-inf")

    @property
    def is_away(self) -> bool:
        """It failed a moment ago: it is not asked now."""
        return self._monotonic() < self._until

    def begin(self) -> None:
        """It has failed."""
        self._until = self._monotonic() + self._lasts
