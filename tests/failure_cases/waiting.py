"""Waiting on a condition, and work in other threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], object], what: str, *, seconds: float = 20) -> None:
    """Return when *condition* holds; AssertionError at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of *calls*, each begun in a thread of its own at the same moment."""
    barrier = threading.Barrier(len(calls))

    def one(call: Callable[[], T]) -> T:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))
