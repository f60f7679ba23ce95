"""How long to wait before something is tried again: twice as long each time, and not all at one moment."""

from __future__ import annotations

import random
from datetime import timedelta

_MOST = 20  # doublings: more than any pause here takes to be as long as it may, and few enough for a `timedelta`


def doubled(first: timedelta, times: int, *, longest: timedelta) -> timedelta:
    """*first*, doubled so many *times*, and at most *longest*. None or less: *first*."""
    return min(first * (1 << max(0, min(times, _MOST))), longest)


def scattered(wait: timedelta) -> timedelta:
    """Half of *wait* to the whole: rivals that failed together do not meet again."""
    return wait * random.uniform(0.5, 1)  # noqa: S311 - it spreads rivals, and guards nothing


def spread(over: timedelta) -> timedelta:
    """A part of that: those who wait for one moment come one after the other."""
    return over * random.random()  # noqa: S311 - as above
