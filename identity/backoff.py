"""Exponential backoff with jitter."""

from __future__ import annotations

import random
from datetime import timedelta

_MOST = 20  # doublings: enough to reach any limit used here, and few enough not to overflow a `timedelta`


def doubled(first: timedelta, times: int, *, longest: timedelta) -> timedelta:
    """Return *first* doubled *times* times, at most *longest*; *first* itself for zero or fewer doublings."""
    return min(first * (1 << max(0, min(times, _MOST))), longest)


def scattered(wait: timedelta) -> timedelta:
    """Return a random wait from half of *wait* to all of it: rivals that failed together must not meet again."""
    return wait * random.uniform(0.5, 1)  # noqa: S311 - jitter, not security


def spread(over: timedelta) -> timedelta:
    """Return a random part of *over*, so that work due at one moment is spread out."""
    return over * random.random()  # noqa: S311 - as above
