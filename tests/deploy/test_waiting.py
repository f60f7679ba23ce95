"""Looking again and again: at least once, and not much longer than was said."""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import islice

from deploy.waiting import looks


def test_who_has_no_time_looks_once() -> None:
    assert len(list(looks(timedelta()))) == 1


def test_the_last_look_is_at_the_end_of_the_time() -> None:
    begun = time.monotonic()
    seen = [time.monotonic() - begun for _ in looks(timedelta(seconds=0.2), every=timedelta(seconds=0.05))]
    assert len(seen) >= 2
    assert seen[0] < 0.2 <= seen[-1]


def test_without_an_end_there_is_always_another_look() -> None:
    assert len(list(islice(looks(None, every=timedelta()), 1000))) == 1000
