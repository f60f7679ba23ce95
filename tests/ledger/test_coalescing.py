"""Many bells for one revocation are one thread's work."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.broker.coalescing import Coalescing
from tests.waiting import PATIENCE, eventually


def test_who_comes_while_one_is_at_work_goes_away_and_the_work_is_done_once_more() -> None:
    at_it, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def act(id: str) -> None:
        done.append(id)
        if id == "r1":
            at_it.set()
            assert go_on.wait(PATIENCE)

    advance = Coalescing(act)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(advance, "r1")
        assert at_it.wait(PATIENCE)
        for _ in range(5):
            advance("r1")
        assert done == ["r1"], "they are not at it beside the first"
        advance("r2")
        go_on.set()
        first.result(PATIENCE)
    assert done == ["r1", "r2", "r1"], "once more, since what they came for may be later than the first look"
    advance("r1")
    assert done[-1] == "r1"
    assert len(done) == 4


def test_what_fails_is_raised_and_keeps_nobody_out() -> None:
    answers = iter([ValueError("no"), None])

    def act(id: str) -> None:
        if (fault := next(answers)) is not None:
            raise fault

    advance = Coalescing(act)
    with pytest.raises(ValueError, match="no"):
        advance("r1")
    advance("r1")
    assert next(answers, "all were asked for") == "all were asked for"


def test_of_bells_in_many_threads_the_last_is_never_lost() -> None:
    """Whatever was there before a bell is seen by a look that begins after it."""
    told, seen = 0, 0
    lock = threading.Lock()

    def look(id: str) -> None:
        nonlocal seen
        with lock:
            seen = told

    advance = Coalescing(look)

    def ring() -> None:
        nonlocal told
        for _ in range(200):
            with lock:
                told += 1
            advance("r1")

    with ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(ring) for _ in range(8)]:
            one.result(60)
    eventually(lambda: seen == told == 1600, what="the last bell's look")
