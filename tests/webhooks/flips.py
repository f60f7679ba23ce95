"""Whatever is one bit away from what was signed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator


def flips(value: bytes, places: Iterable[int] | None = None) -> Iterator[bytes]:
    """*value* with each of its bits, or each of those at *places*, flipped in turn."""
    for place in range(len(value) * 8) if places is None else places:
        flipped = bytearray(value)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)


def some_flips(value: bytes) -> Iterator[bytes]:
    """The first bit, the last one and 64 in between, the same ones each time: for bodies too long to try all of."""
    last = len(value) * 8 - 1
    between = random.Random(len(value)).sample(range(1, last), 64)
    return flips(value, [0, *between, last])


def text_flips(value: str) -> Iterator[str]:
    """The same of a header's value, as a server hands it on (PEP 3333)."""
    return (flipped.decode("latin-1") for flipped in flips(value.encode()))
