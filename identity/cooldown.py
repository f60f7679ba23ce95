"""Leaving a failed service alone: a circuit breaker of one process, for a service that it can do without for a while.

A service that hangs costs each caller a whole timeout. After a failure nobody asks it for a while, and then one caller
at a time tries it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NewType

Turn = NewType("Turn", int)


class Cooldown:
    """The circuit breaker, shared by all threads. Each call takes a turn first, and tells how it ended.

    An outcome counts only if nothing was learnt since its turn was given: a call that began before a failure and ends
    well after it, or that began before a recovery and fails, says nothing new.
    """

    def __init__(self, *pauses: timedelta, monotonic: Callable[[], float] = time.monotonic) -> None:
        """*pauses* follow the first, second … failure in a row; the last one is repeated."""
        self._pauses = [one.total_seconds() for one in pauses]
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._turn = Turn(1)  # the next one after each change
        self._failures = 0  # in a row
        self._silent_until = 0.0

    def turn(self) -> Turn | None:
        """Return a turn to ask the service, or None to leave it alone."""
        with self._lock:
            if self._failures:
                now = self._monotonic()
                if now < self._silent_until:
                    return None
                self._silent_until = now + self._pauses[-1]  # for the others, as this trial may hang
            return self._turn

    def failed(self, turn: Turn) -> bool:
        """Note that the service did not answer, or refuses everybody. Return True if that begins an outage."""
        with self._lock:
            if turn != self._turn:
                return False
            self._turn = Turn(turn + 1)
            self._failures += 1
            self._silent_until = self._monotonic() + self._pauses[min(self._failures, len(self._pauses)) - 1]
            return self._failures == 1

    def succeeded(self, turn: Turn) -> bool:
        """Note that the service works. Return True if that ends an outage."""
        with self._lock:
            if turn != self._turn or not self._failures:
                return False
            self._turn = Turn(turn + 1)
            self._failures = 0
            return True

    def undecided(self, turn: Turn) -> None:
        """Note that nothing was learnt: if this was a trial, the next caller makes one."""
        with self._lock:
            if turn == self._turn and self._failures:
                self._silent_until = self._monotonic()
