"""Batches of ids or rows, for statements that can name only a limited number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_batches(items: Sequence[T], size: int = 500) -> Iterator[Sequence[T]]:
    """Yield all items in order, at most *size* at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
