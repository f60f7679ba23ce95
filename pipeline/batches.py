"""Batches: many ids or rows, so many at a time, since a statement that names each can name only so many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_batches(items: Sequence[T], size: int = 500) -> Iterator[Sequence[T]]:
    """All of them in order, at most *size* at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
