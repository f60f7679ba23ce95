"""How soon a worker comes back to a broker that was away, and what it tells it of messages."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.broker.consumer import Consumer
from pipeline.broker.ring import JOB, REVOCATION, CeleryRing
from tests.celery.rig import Child, bells, publisher
from tests.waiting import eventually

FAILURES = Consumer.FAILURES


class Connection:
    """Notes how it is asked to connect."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def ensure_connection(self, *_: Any, **how: Any) -> Connection:
        self.asked = how
        return self


def test_the_pause_between_attempts_to_reconnect_is_capped_at_three_seconds() -> None:
    consumer = Consumer.__new__(Consumer)
    consumer.app = SimpleNamespace(conf=publisher("redis://127.0.0.1:1/0").conf)  # type: ignore[assignment]
    connection = Connection()
    assert consumer.ensure_connected(connection) is connection
    assert connection.asked["interval_start"] == 0.5
    assert connection.asked["interval_step"] == 0.5
    assert connection.asked["interval_max"] == 3


@pytest.mark.parametrize(("broker", "keeps"), [("redis://127.0.0.1:1/0", False), ("amqp://127.0.0.1:1", True)])
def test_what_a_broker_keeps_is_acknowledged_and_nothing_else(broker: str, keeps: bool) -> None:
    app = publisher(broker)
    assert {queue.no_ack for queue in app.conf.task_queues} == {not keeps}
    of = "celery.worker.request:Request" if keeps else "pipeline.broker.consumer:Request"
    assert {app.tasks[name].Request for name in (JOB, REVOCATION)} == {of}


def no_threads(consumer: str) -> str:
    return json.dumps(
        {"worker_pool": "tests.celery.pools:NoThreads", "worker_consumer": f"tests.celery.pools:{consumer}"}
    )


def test_a_worker_that_can_begin_nothing_leaves_and_blames_no_message(
    ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child(RIG_CONF=no_threads("Hasty"))
    worker.work(concurrency=2)
    ring.jobs(bells(*(f"ok-{n}" for n in range(FAILURES + 30))))
    assert worker.wait() == os.EX_SOFTWARE
    assert "began no bell in between: this process leaves" in worker.text()
    assert "can't start new thread" in worker.text()
    assert "is not a message" not in worker.text()
    assert worker.lines()[-2:] == ["winds down", "closed"]


def test_what_a_machine_lacks_for_less_than_a_minute_ends_no_worker(
    ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child(RIG_CONF=no_threads("Prompt"))
    worker.work(concurrency=2)
    ring.jobs(bells(*(f"ok-{n}" for n in range(FAILURES + 2))))
    eventually(lambda: worker.text().count("the consumer failed, and starts") == FAILURES + 2, log=worker.log)
    assert worker.running()


def test_a_worker_that_begins_some_stays(ring: CeleryRing, child: Callable[..., Child]) -> None:
    worker = child(RIG_CONF=json.dumps({"worker_pool": "tests.celery.pools:EverySecond"}))
    worker.work(concurrency=2)
    for pair in range(FAILURES + 1):
        ring.jobs(bells(f"ok-{pair}", "ok-lost"))
        eventually(lambda pair=pair: worker.ended(f"ok-{pair}"), log=worker.log)  # type: ignore[misc]
        eventually(lambda pair=pair: worker.text().count("the consumer failed, and starts") > pair, log=worker.log)  # type: ignore[misc]
    assert worker.running()
