"""What the waiters of one refresh wait for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from identity.refresh.flight import Latch


def test_a_latch_lets_nobody_through_before_it_is_opened_and_everybody_from_then_on() -> None:
    latch = Latch()
    assert not latch.wait(0)
    assert not latch.wait(-1)
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(latch.wait, 60) for _ in range(50)]
        assert not any(one.done() for one in waiting)
        latch.open()
        assert all(one.result() for one in waiting)
    assert latch.wait(0)


def test_whoever_has_no_time_left_passes_an_open_latch_through_which_another_is_just_passing() -> None:
    latch = Latch()
    latch.open()
    with latch._shut:
        assert latch.wait(0)
