"""Several bells for one revocation come to one thread at work on it, which looks once more when it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Coalescing:
    """Does *act* for each id, in one thread of the process at a time for the same id.

    Whoever comes meanwhile goes away at once: the one at work does it once more, since what the bell was for may have
    come after its look. If that fails, housekeeping does it.
    """

    def __init__(self, act: Callable[[str], object]) -> None:
        self._act = act
        self._lock = threading.Lock()
        self._rung: dict[str, bool] = {}  # those under way, and whether somebody came meanwhile

    def __call__(self, id: str) -> None:
        """Raises what *act* does."""
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
        """False: nobody came meanwhile, and who comes from here on finds nobody at work."""
        with self._lock:
            if self._rung[id]:
                self._rung[id] = False
                return True
            del self._rung[id]
            return False
