"""A check whose result is shared by all callers."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class CachedCheck:
    """Runs *look* and shares the result with every caller until it expires.

    Success is trusted for *believed* seconds and a fault for *doubted* seconds; a caller that waited for a running
    check takes its result in either case. For *patience* seconds after a success has expired, callers do not wait for a
    running check but keep trusting the old result. They do no longer than that, because a check that takes so long may
    be about to find a fault.
    """

    def __init__(
        self,
        look: Callable[[], None],
        *,
        believed: float,
        doubted: float = 0,
        patience: float = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._believed = believed
        self._doubted = doubted
        self._patience = patience
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ended = -math.inf  # when the last check ended
        self._fault: Exception | None = None

    def result(self) -> None:
        """Return or raise as the check did."""
        asked = self._monotonic()
        believes = self._fault is None and asked < self._ended + self._believed + self._patience
        if believes and asked < self._ended + self._believed:
            return
        if not self._lock.acquire(blocking=not believes):
            return
        try:
            if self._ended < asked and not self._is_doubted(asked):
                try:
                    self._look()
                except Exception as fault:  # noqa: BLE001 - raised below, to every caller
                    self._fault = fault
                else:
                    self._fault = None
                self._ended = self._monotonic()
            if self._fault is not None:
                raise self._fault.with_traceback(None)
        finally:
            self._lock.release()

    def _is_doubted(self, now: float) -> bool:
        return self._fault is not None and now < self._ended + self._doubted
