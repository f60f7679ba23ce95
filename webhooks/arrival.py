"""When a request came: it may have waited for a thread, and its sender's patience does not begin anew then."""

from __future__ import annotations

import time
from contextvars import ContextVar

_HANDED: ContextVar[float | None] = ContextVar("handed", default=None)


def note_arrival(at: float | None) -> None:
    """Say when the request that this thread takes next came, by `time.monotonic()`. None: now."""
    _HANDED.set(at)


def arrived() -> float:
    """When the request came that this thread has; now, where no server says so."""
    at = _HANDED.get()
    return time.monotonic() if at is None else at
