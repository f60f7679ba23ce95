"""A worker has all of its threads before it asks for its first bell, or says that it cannot have them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from pipeline.broker.pool import TaskPool

_start = threading.Thread.start


class Machine:
    """Gives so many threads; *asked* counts those that were wanted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gives: Callable[[int], bool]) -> None:
        self.asked = 0

        def start(thread: threading.Thread) -> None:
            self.asked += 1
            if not gives(self.asked):
                raise RuntimeError("can't start new thread")
            _start(thread)

        monkeypatch.setattr(threading.Thread, "start", start)


class Impatient(TaskPool):
    PATIENCE = 0.05


def test_every_thread_is_there_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda number: number <= 4)
    pool = TaskPool(limit=4)
    pool.start()
    together = threading.Barrier(4)
    for done in [pool.executor.submit(together.wait, 60) for _ in range(4)]:
        done.result(60)
    assert machine.asked == 4
    assert REGISTRY.get_sample_value("aswhom_worker_threads", {"state": "all"}) == 4
    pool.stop()


def test_threads_that_cannot_be_had_at_once_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, lambda number: number != 3)
    pool = Impatient(limit=4)
    pool.start()
    together = threading.Barrier(4)
    for done in [pool.executor.submit(together.wait, 60) for _ in range(4)]:
        done.result(60)
    pool.stop()


def test_a_worker_that_cannot_have_its_threads_ends_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Machine(monkeypatch, lambda number: number % 3 != 0)
    pool = Impatient(limit=4)
    with pytest.raises(SystemExit) as ended:
        pool.start()
    assert ended.value.code == os.EX_OSERR
    assert "gives no 4 threads: raise its limit" in caplog.text
    pool.stop()
