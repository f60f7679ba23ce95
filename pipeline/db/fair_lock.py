"""A lock that threads get in the order in which they asked."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """Handed over by its holder. From `threading.Lock` a busy thread takes it again before a waiting one is awake."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Semaphore] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def acquire(self, *, timeout: float) -> bool:
        """Return True once this thread has it, or False after *timeout* seconds."""
        with self._guard:
            if not self._held:
                self._held = True
                return True
            turn = threading.Semaphore(0)
            self._waiting.append(turn)
        if turn.acquire(timeout=timeout):
            return True
        with self._guard:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return False
        return True  # handed over in this moment

    def release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False
