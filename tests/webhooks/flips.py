"""Whatever is one bit away from what was signed."""

from __future__ import annotations

from collections.abc import Iterator


def flips(value: bytes) -> Iterator[bytes]:
    """*value* with each of its bits flipped in turn."""
    for place in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)


def text_flips(value: str) -> Iterator[str]:
    """The same of a header's value, as a server hands it on (PEP 3333)."""
    return (flipped.decode("latin-1") for flipped in flips(value.encode()))
