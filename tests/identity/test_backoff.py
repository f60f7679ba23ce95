"""Pauses between tries: they double up to a bound, and rivals do not meet again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from identity.backoff import doubled, scattered, spread

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@pytest.mark.parametrize(("times", "seconds"), [(-1, 1), (0, 1), (1, 2), (2, 4), (11, 2048), (12, 3600), (10**9, 3600)])
def test_a_pause_doubles_up_to_the_longest(times: int, seconds: int) -> None:
    assert doubled(SECOND, times, longest=HOUR) == timedelta(seconds=seconds)


def test_a_long_first_pause_doubled_often_is_no_overflow() -> None:
    assert doubled(timedelta(days=30), 10**9, longest=timedelta(days=60)) == timedelta(days=60)


def test_rivals_wait_for_different_parts_of_it() -> None:
    halves, parts = {scattered(HOUR) for _ in range(50)}, {spread(HOUR) for _ in range(50)}
    assert len(halves) > 1 < len(parts)
    assert all(HOUR / 2 <= one <= HOUR for one in halves)
    assert all(timedelta() <= one <= HOUR for one in parts)
