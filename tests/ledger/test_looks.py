"""One look for all who ask: what it found counts for a while, and a look that fails leaves nobody believing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from identity.errors import Unavailable
from pipeline.cached_check import CachedCheck
from tests.waiting import PATIENCE, eventually


class Scene:
    """A thing that is looked at, a clock, and how often it was looked."""

    def __init__(self) -> None:
        self.now, self.looks, self.fault = 0.0, 0, ""
        self.shared = CachedCheck(self._look, believed=60, patience=5, monotonic=lambda: self.now)
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def _look(self) -> None:
        self.looks += 1
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        if self.fault:
            raise Unavailable(self.fault)

    def outcome(self) -> str:
        try:
            self.shared.result()
        except Unavailable as error:
            return str(error)
        return "well"


def test_what_was_found_well_is_believed_for_a_while_and_a_fault_for_none() -> None:
    scene = Scene()
    assert [scene.outcome(), scene.outcome(), scene.looks] == ["well", "well", 1]
    scene.now, scene.fault = 60.0, "behind"
    assert [scene.outcome(), scene.looks] == ["behind", 2]
    scene.now, scene.fault = 60.1, ""
    assert [scene.outcome(), scene.looks] == ["well", 3]


def test_after_a_look_that_failed_nobody_believes_what_was_seen_before() -> None:
    """An address behind which another ledger comes does not answer first."""
    scene = Scene()
    scene.outcome()
    scene.fault = "no connection"
    for seconds in (61.0, 61.1, 62.0):
        scene.now = seconds
        assert scene.outcome() == "no connection"


def test_who_comes_while_it_is_looked_again_believes_for_some_seconds_and_then_waits() -> None:
    scene = Scene()
    scene.outcome()
    scene.now, scene.fault = 61.0, "behind"
    scene.go_on.clear()
    scene.begun.clear()
    with ThreadPoolExecutor(2) as threads:
        looks = threads.submit(scene.outcome)
        assert scene.begun.wait(PATIENCE)
        assert scene.outcome() == "well"
        scene.now = 65.0
        waits = threads.submit(scene.outcome)
        with pytest.raises(TimeoutError):
            waits.result(timeout=0.2)
        scene.go_on.set()
        assert [looks.result(PATIENCE), waits.result(PATIENCE)] == ["behind", "behind"]
    assert scene.looks == 2


def test_those_who_wait_for_a_look_take_its_outcome_and_look_no_more() -> None:
    scene = Scene()
    scene.fault = "no connection"
    scene.go_on.clear()
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(scene.outcome) for _ in range(16)]
        eventually(lambda: len([one for one in asked if one.running()]) == 16)
        scene.now = 5.0
        scene.go_on.set()
        assert {one.result(PATIENCE) for one in asked} == {"no connection"}
    assert scene.looks == 1
