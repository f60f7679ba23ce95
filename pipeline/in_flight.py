"""The calls of one process that are on their way, by host: one that does not answer gets no more than its share."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(kw_only=True)
class _Calls:
    flying: int = 0
    unanswered: int = 0  # begun since the host last answered


class InFlight:
    """A host may have *most* calls of this process's threads at once unless it answers meanwhile. One for all threads.

    Threads are a process's own, so this needs nobody else's word.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: dict[str, _Calls] = {}
        self._lock = threading.Lock()

    def enter(self, host: str) -> bool:
        """Count one more. False: as many wait for the host, and it has answered none since they began."""
        with self._lock:
            calls = self._calls.setdefault(host, _Calls())
            if calls.flying >= self._most and calls.unanswered >= self._most:
                return False
            calls.flying += 1
            calls.unanswered += 1
            return True

    def leave(self, host: str, *, answered: bool) -> None:
        """One has ended; *answered*: by a whole answer, whatever it said."""
        with self._lock:
            calls = self._calls[host]
            calls.flying -= 1
            if answered:
                calls.unanswered = 0
            if not calls.flying:
                del self._calls[host]
