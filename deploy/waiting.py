"""Polling for changes that send no notification: other processes' progress, and servers' answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

_AGAIN = timedelta(milliseconds=100)


def looks(
    within: timedelta | None,
    *,
    every: timedelta = _AGAIN,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Yield at once, then every interval until the time is over (None: never). The caller breaks out when done."""
    deadline = None if within is None else monotonic() + within.total_seconds()
    yield
    while deadline is None or monotonic() < deadline:
        sleep(every.total_seconds())
        yield
