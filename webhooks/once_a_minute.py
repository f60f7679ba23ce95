"""Limits log lines about floods to one a minute for each sender."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

_MINUTE = 60.0  # seconds
_MOST = 100  # lines in that time: anybody can create installations


class OnceAMinute:
    """Remembers what was logged in this minute."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._minute = -1
        self._told: set[Hashable] = set()

    def is_due(self, what: Hashable) -> bool:
        """True the first time in a minute, up to a number of different ones."""
        with self._lock:
            if (minute := int(self._monotonic() / _MINUTE)) != self._minute:
                self._minute = minute
                self._told.clear()
            if what in self._told or len(self._told) >= _MOST:
                return False
            self._told.add(what)
            return True
