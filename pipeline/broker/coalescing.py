"""Coalescing of bells for one revocation: the thread at work repeats its look when it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Coalescing:
    """Does *act* for each id, in only one thread of the process at a time per id.

    A caller that arrives meanwhile returns at once, and the thread at work acts once more, since the event behind the
    bell may have come after its look. If that fails, housekeeping does it.
    """

    def __init__(self, act: Callable[[str], object]) -> None:
        self._act = act
        self._lock = threading.Lock()
        self._rung: dict[str, bool] = {}  # ids in progress, and whether another call arrived meanwhile

    def __call__(self, id: str) -> None:
        """Act for *id*, or leave it to the thread at work. Raises what *act* raises."""
        with self._lock:
            if id in self._rung:
                self._rung[id] = True
                return
            self._rung[id] = True
        try:
            while self._goes_on(id):
                self._act(id)
        except BaseException:
            with self._lock:
                del self._rung[id]
            raise

    def _goes_on(self, id: str) -> bool:
        """Return True to act (again). False: no call arrived meanwhile, and the next one will find nobody at work."""
        with self._lock:
            if self._rung[id]:
                self._rung[id] = False
                return True
            del self._rung[id]
            return False
