"""Identifiers: a prefix for the kind, then a part that is time-ordered and random, or derived from other values."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from hashlib import sha256

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32, lower case


class Ids:
    """Makes identifiers such as `job_06f3k…`: 48 bits of time, 80 of randomness, sorted by creation."""

    def __init__(
        self,
        *,
        milliseconds: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random_bits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._milliseconds = milliseconds
        self._random_bits = random_bits

    def __call__(self, prefix: str) -> str:
        return f"{prefix}_{_spelt(self._milliseconds() << 80 | self._random_bits(80))}"


def following(prefix: str, *of: str | int) -> str:
    """Return the identifier derived from these values: the same wherever it is computed, in no particular order."""
    digest = sha256("\x00".join(map(str, of)).encode()).digest()
    return f"{prefix}_{_spelt(int.from_bytes(digest[:16], 'big'))}"


def _spelt(number: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
