"""A lock that threads get in the order in which they asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pipeline.db.fair_lock import FairLock
from tests.waiting import eventually


def test_who_waits_gets_it_before_a_holder_that_asks_again_at_once() -> None:
    lock, order = FairLock(), []

    def wait(name: str) -> None:
        assert lock.acquire(timeout=60)
        order.append(name)

    assert lock.acquire(timeout=0)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(wait, "first")
        eventually(lambda: lock.waiting == 1, "the first waits")
        second = pool.submit(wait, "second")
        eventually(lambda: lock.waiting == 2, "the second waits")
        lock.release()
        assert not lock.acquire(timeout=0)
        first.result(60)
        lock.release()
        second.result(60)
    assert order == ["first", "second"]


def test_who_gave_up_waiting_is_handed_nothing() -> None:
    lock = FairLock()
    assert lock.acquire(timeout=0)
    assert not lock.acquire(timeout=0)
    lock.release()
    assert lock.acquire(timeout=0)
