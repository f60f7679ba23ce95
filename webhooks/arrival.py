"""Arrival time of a request: time spent waiting for a thread counts against the sender's patience."""

from __future__ import annotations

import time
from contextvars import ContextVar

_HANDED: ContextVar[float | None] = ContextVar("handed", default=None)


def note_arrival(at: float | None) -> None:
    """Record when the request this thread takes next arrived, by `time.monotonic()`. None: now."""
    _HANDED.set(at)


def arrived() -> float:
    """Return when this thread's request arrived; now, if the server did not say."""
    at = _HANDED.get()
    return time.monotonic() if at is None else at
