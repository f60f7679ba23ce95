"""Cooldown for a Redis that failed, shared by all its clients in a process.

A Redis that hangs costs each caller a whole timeout. If every object learned this alone, a step would pay once for
each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta


class RedisCooldown:
    """The cooldown of one Redis, for all threads and all objects that share the client."""

    def __init__(
        self, *, lasts: timedelta = timedelta(seconds=5), monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lasts = lasts.total_seconds()
        self._monotonic = monotonic
        self._until = float("-inf")

    @property
    def is_away(self) -> bool:
        """True shortly after a failure: do not ask it now."""
        return self._monotonic() < self._until

    def begin(self) -> None:
        """Start the cooldown after a failure."""
        self._until = self._monotonic() + self._lasts
