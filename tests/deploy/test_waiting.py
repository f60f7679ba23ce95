"""Looking again and again: at least once, and not much longer than was said."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice

from deploy.waiting import looks


def test_who_has_no_time_looks_once() -> None:
    assert len(list(looks(timedelta()))) == 1


def test_the_last_look_is_at_the_end_of_the_time() -> None:
    now = [7.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    every = timedelta(seconds=4)
    assert [now[0] for _ in looks(timedelta(seconds=10), every=every, monotonic=lambda: now[0], sleep=sleep)] == [
        7.0,
        11.0,
        15.0,
        19.0,
    ]


def test_without_an_end_there_is_always_another_look() -> None:
    assert len(list(islice(looks(None, every=timedelta()), 1000))) == 1000
