"""Looking again at what nobody here is woken by: what other processes do, and what a server answers."""

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
    """Once, and *every* so often until the time is over; None: without end. The loop leaves when it has seen enough."""
    deadline = None if within is None else monotonic() + within.total_seconds()
    yield
    while deadline is None or monotonic() < deadline:
        sleep(every.total_seconds())
        yield
