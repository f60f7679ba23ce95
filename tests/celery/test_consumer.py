"""How soon a worker comes back to a broker that was away, and what it tells it of messages."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state
from kombu.asynchronous.timer import Timer

from pipeline.broker.consumer import Consumer, UnreadableMessage
from pipeline.broker.pool import TaskPool
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
    of = "celery.worker.request:Request" if keeps else "pipeline.broker.consumer:UnacknowledgedRequest"
    assert {app.tasks[name].Request for name in (JOB, REVOCATION)} == {of}


class Message:
    """What a broker delivered."""

    content_type, content_encoding, delivery_tag = "application/json", "utf-8", 1

    def __init__(self, **headers: Any) -> None:
        self.headers = headers
        self.delivery_info: dict[str, Any] = {}
        self.properties: dict[str, Any] = {}
        self.payload = [["j1"], {}, {}]
        self.body = '[["j1"], {}, {}]'
        self.rejected = False

    def ack_log_error(self, *_: Any) -> None: ...

    def reject_log_error(self, *_: Any) -> None:
        self.rejected = True


def consumer_at(broker: str, begin: Callable[[Any], object]) -> Consumer:
    app = publisher(broker)
    controller = SimpleNamespace(state=state, use_eventloop=False)
    made = Consumer(begin, app=app, hostname="w", pool=TaskPool(1), controller=controller, timer=Timer())
    made.update_strategies()
    return made


def test_an_unreadable_message_is_rejected_where_the_broker_would_deliver_it_again() -> None:
    unhashable: Any = ["aswhom.job"]
    at_rabbit, at_redis = Message(task=unhashable), Message(task=unhashable)
    consumer_at("amqp://127.0.0.1:1", never).create_task_handler()(at_rabbit)
    assert at_rabbit.rejected
    with pytest.raises(UnreadableMessage):
        consumer_at("redis://127.0.0.1:1/0", never).create_task_handler()(at_redis)
    assert not at_redis.rejected


@pytest.mark.parametrize("broker", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1"])
def test_a_forged_delay_is_not_heeded(broker: str) -> None:
    """A message that is kept until then takes memory, and at RabbitMQ the queue's only bell."""
    begun: list[Any] = []
    consumer_at(broker, begun.append).create_task_handler()(
        Message(task=JOB, id="forged", lang="py", eta="2999-01-01T00:00:00")
    )
    assert [request.id for request in begun] == ["forged"]


def test_rabbitmq_is_asked_for_one_bell_of_each_queue_and_for_nothing_that_delays() -> None:
    consumer = consumer_at("amqp://127.0.0.1:1", never)
    assert consumer.initial_prefetch_count == 1
    assert not [name for name in consumer.blueprint.steps if "delayed" in name.lower()]


def test_a_rabbitmq_that_no_longer_sends_from_a_queue_is_connected_to_anew() -> None:
    """It says so once, which Celery does not heed while it starts."""
    consumer = consumer_at("amqp://127.0.0.1:1", never)
    consumer.task_consumer = SimpleNamespace(queues=["service", "hybrid"])
    consumer._look_round(SimpleNamespace(callbacks={"1": never, "2": never}), is_asked=False)
    with pytest.raises(consumer.connection_errors):
        consumer._look_round(SimpleNamespace(callbacks={"2": never}), is_asked=False)


def never(_: Any) -> None:
    raise AssertionError("nothing is begun here")


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
