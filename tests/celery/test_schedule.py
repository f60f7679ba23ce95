"""Beat over a ledger: any number of beats, one firing a slot."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.broker.celery import App, BrokerSettings, make_celery
from pipeline.model import Bell
from pipeline.schedules.beat import Scheduler
from pipeline.schedules.ticks import STUCK_AFTER, Ticks
from tests.celery.rig import SCHEDULER, Child, slots_heard
from tests.servers.valkey import Valkey
from tests.waiting import PATIENCE, eventually


@contextmanager
def no_slot_under_way(worker: Child, directory: Path) -> Iterator[None]:
    """Keep the beats from taking a slot, once each slot that one of them took has been heard.

    A beat that ends between committing a slot and ringing its bell leaves that slot out. A real ledger rings again
    later, and this one does not.
    """
    with closing(sqlite3.connect(directory / "slots.db", timeout=PATIENCE, isolation_level=None)) as database:
        database.execute("begin immediate")
        taken = {slot for (slot,) in database.execute("select slot from slots")}
        eventually(lambda: taken <= set(slots_heard(worker)), what="all slots taken are heard", log=worker.log)
        yield


@pytest.mark.usefixtures("broker")
def test_two_beats_fire_each_slot_once(child: Callable[..., Child], tmp_path: Path) -> None:
    one, two, worker = child("beat1"), child("beat2"), child()
    worker.work(concurrency=2)
    one.start(*SCHEDULER)
    two.start(*SCHEDULER)
    eventually(lambda: worker.lines().count("opened") == 3, what="both beats run", log=one.log)
    fired = len(slots_heard(worker))
    eventually(lambda: len(slots_heard(worker)) >= fired + 6, what="six more slots", log=worker.log)
    with no_slot_under_way(worker, tmp_path):
        one.send(signal.SIGKILL)
        one.wait()
    fired = len(slots_heard(worker))
    eventually(lambda: len(slots_heard(worker)) >= fired + 3, what="the other goes on", log=two.log)
    with no_slot_under_way(worker, tmp_path):
        two.send(signal.SIGTERM)
    assert two.wait() == 0
    slots = slots_heard(worker)
    assert len(set(slots)) == len(slots)
    assert sorted(slots) == list(range(min(slots), max(slots) + 1))  # none was left out
    assert worker.lines().count("closed") == 1
    told = {line.rsplit(" ", 1)[0] for line in (tmp_path / "heartbeats").read_text().splitlines()}
    assert told == {"beat None"}


def test_a_beat_outlives_a_broker_that_is_away(broker: Valkey, child: Callable[..., Child]) -> None:
    beat, worker = child("beat"), child()
    beat.start(*SCHEDULER)
    eventually(lambda: beat.lines() == ["opened"], log=beat.log)
    broker.kill()
    eventually(lambda: "the broker does not take bells" in beat.text(), log=beat.log)
    broker.start()
    worker.work(concurrency=2)
    eventually(lambda: slots_heard(worker), what="a slot fires again", log=beat.log)
    assert beat.running()


class Interrupted:
    """A runtime whose schedules are being read when the signal comes."""

    def __init__(self) -> None:
        self.schedules = self
        self.scheduler: Scheduler | None = None
        self.reading = False
        self.closed: list[bool] = []

    def fire_due(self, now: datetime, ring: Callable[[Sequence[Bell]], object]) -> list[Bell]:
        self.reading = True
        assert self.scheduler is not None
        self.scheduler.close()  # what Beat's signal handler does
        self.reading = False
        raise SystemExit

    def close(self) -> None:
        self.closed.append(self.reading)


def test_a_signal_in_the_middle_of_a_tick_closes_the_ledger_after_it_and_once() -> None:
    runtime = Interrupted()
    app: App = make_celery(BrokerSettings(url="redis://127.0.0.1:1/0"), lambda: cast("Any", runtime))
    runtime.scheduler = scheduler = Scheduler(app)
    with pytest.raises(SystemExit):
        scheduler.tick()
    scheduler.close()
    scheduler.close()
    assert runtime.closed == [False]


def test_a_beat_that_does_not_come_round_is_stuck_and_one_that_has_not_begun_is_not() -> None:
    now = [0.0]
    ticks = Ticks(lambda: now[0])
    assert (ticks.have_begun(), ticks.is_well()) == (False, True)
    ticks.ended()
    now[0] = STUCK_AFTER.total_seconds()
    assert (ticks.have_begun(), ticks.is_well()) == (True, True)
    now[0] += 1
    assert not ticks.is_well()


def test_a_tick_that_fails_is_one_that_ended() -> None:
    runtime = Interrupted()
    runtime.heartbeat = lambda *_: None  # type: ignore[attr-defined]
    runtime.fire_due = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
    app: App = make_celery(BrokerSettings(url="redis://127.0.0.1:1/0"), lambda: cast("Any", runtime))
    scheduler = Scheduler(app)
    assert not app.ticks.have_begun()
    scheduler.tick()
    assert app.ticks.have_begun()
