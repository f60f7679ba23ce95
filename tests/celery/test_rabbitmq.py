"""Real workers and a real RabbitMQ: what `test_outage`, `test_junk` and `test_ring` hold of Valkey."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import amqp
import pytest

from identity.model import AccessPattern
from pipeline.broker.celery import QUEUES
from pipeline.broker.ring import CeleryRing
from tests.celery.rig import SCHEDULER, Asked, Child, bells, count, publisher, ring_once, slots_heard
from tests.servers.process import free_port
from tests.servers.rabbitmq import RabbitMQ
from tests.waiting import eventually

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(600)]

SLOTS = 4


@pytest.fixture
def broker(own_rabbitmq: RabbitMQ) -> RabbitMQ:
    return own_rabbitmq


@pytest.fixture
def ring(broker: RabbitMQ) -> Iterator[CeleryRing]:
    with closing(CeleryRing(publisher(broker.url))) as ring:
        yield ring


def ended(worker: Child, jobs: list[str], what: str) -> None:
    eventually(lambda: all(map(worker.ended, jobs)), what=what, log=worker.log)


def rung(ring: CeleryRing, job: str) -> None:
    """As the dispatcher does: again until the broker takes it."""
    eventually(lambda: ring.jobs(bells(job)), what=f"the broker takes the bell of {job}")


def test_bells_of_every_pattern_arrive_even_those_rung_before_the_first_worker(
    broker: RabbitMQ, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    with broker.channel() as channel:
        for queue in QUEUES:
            channel.queue_delete(queue)
        channel.exchange_delete("aswhom")
    for pattern in AccessPattern:
        assert ring.unheard(pattern) == 0, "there is no such queue yet"
        assert ring.jobs(bells(f"ok-{pattern}", pattern=pattern))
        assert ring.unheard(pattern) == 1
    worker = child()
    worker.work()
    ring.revocations(["r1", "r2"])
    expected = {"opened", "advanced r1", "advanced r2"}
    for pattern in AccessPattern:
        expected |= {f"began ok-{pattern}", f"ended ok-{pattern}"}
    eventually(lambda: set(worker.lines()) >= expected, what="every bell is heard", log=worker.log)
    assert sorted(worker.lines()) == sorted(expected)
    assert broker.queues("type", "durable") == {name: ["quorum", "true"] for name in QUEUES}
    exchanges = broker.control("list_exchanges", "--vhost", "aswhom", "--no-table-headers", "name").split()
    assert [name for name in exchanges if not name.startswith("amq.")] == ["aswhom"]


def test_a_saturated_worker_loses_nothing_and_consumes_again_after_each_of_three_kills(
    broker: RabbitMQ, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=SLOTS)
    for kill in range(3):
        held = [f"held-{kill}-{n}" for n in range(3 * SLOTS)]
        losses = worker.text().count("Connection to broker lost")
        for job in held:
            rung(ring, job)
        eventually(lambda held=held: sum(map(worker.began, held)) >= SLOTS, what="every slot is taken", log=worker.log)  # type: ignore[misc]
        broker.kill()
        assert not ring.jobs(bells("ok-lost"))
        assert ring.unheard("service") is None
        worker.open_gate(str(kill))
        eventually(
            lambda losses=losses: worker.text().count("Connection to broker lost") > losses,  # type: ignore[misc]
            what="it is noticed",
            log=worker.log,
        )
        broker.start()
        ended(worker, held, "what waited in the broker is there after its death")
        rung(ring, f"ok-{kill}")
        ended(worker, [f"ok-{kill}"], "it consumes again")
    assert worker.lines().count("opened") == 1
    assert "ended ok-lost" not in worker.lines()


def test_a_frozen_broker_costs_a_ring_one_stall_and_a_worker_gives_it_up_and_is_not_deaf(
    broker: RabbitMQ, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    asked = Asked()
    worker = child(RIG_HEARD=str(asked.port))
    worker.work(concurrency=SLOTS)
    rung(ring, "ok-before")
    ended(worker, ["ok-before"], "it consumes")
    broker.pause()
    try:
        skipped = count("skipped")
        began = time.monotonic()
        assert not ring.jobs(bells("ok-during"))
        assert not ring.jobs(bells("ok-during"))
        assert time.monotonic() - began < 10
        assert count("skipped") == skipped + 1
        eventually(lambda: "Connection to broker lost" in worker.text(), what="it is noticed", log=worker.log)
        assert "Too many heartbeats missed" in worker.text()
        eventually(lambda: worker.text().count("Cannot connect") > 2, what="it tries", log=worker.log)
        assert asked.is_well()
    finally:
        broker.resume()
    rung(ring, "ok-after")
    ended(worker, ["ok-after"], "it consumes again")
    assert worker.lines().count("opened") == 1


def test_a_worker_and_a_beat_wait_for_a_broker_that_is_late(broker: RabbitMQ, child: Callable[..., Child]) -> None:
    broker.kill()
    worker, beat = child(), child("beat")
    worker.start("worker", "--queues", "service", "--concurrency", "2", "--without-gossip", "--without-mingle")
    beat.start(*SCHEDULER)
    eventually(lambda: "Cannot connect" in worker.text(), what="the worker tries", log=worker.log)
    eventually(lambda: "the broker does not take bells" in beat.text(), what="a slot fires", log=beat.log)
    broker.start()
    eventually(lambda: slots_heard(worker), what="a slot is heard", log=worker.log)
    assert beat.running()


def test_a_broker_without_memory_takes_no_bell_and_gives_those_it_has(
    broker: RabbitMQ, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    """RabbitMQ stops reading from connections that publish."""
    rung(ring, "ok-before")
    broker.control("set_vm_memory_high_watermark", "absolute", "1")
    try:
        eventually(lambda: not ring.jobs(bells("ok-during")), what="it takes none")
        worker = child()
        worker.work(concurrency=SLOTS)
        ended(worker, ["ok-before"], "what it has is heard")
        assert not worker.ended("ok-after")
    finally:
        broker.control("set_vm_memory_high_watermark", "0.8")
    rung(ring, "ok-after")
    ended(worker, ["ok-after"], "it takes bells again")


def test_one_bell_of_a_queue_waits_in_a_busy_worker_and_an_idle_one_has_the_others(
    ring: CeleryRing, child: Callable[..., Child]
) -> None:
    busy, idle = child("busy"), child("idle")
    busy.work(concurrency=2)
    held = ["held-a-1", "held-a-2"]
    ring.jobs(bells(*held))
    eventually(lambda: all(map(busy.began, held)), log=busy.log)
    ring.jobs(bells(*(f"ok-{n}" for n in range(8))))
    eventually(lambda: ring.unheard("service") == 7, what="one waits in the worker")
    idle.work(concurrency=2)
    eventually(lambda: sum(busy.ended(f"ok-{n}") for n in range(8)) == 7, what="the others are heard", log=idle.log)
    assert ring.unheard("service") == 0
    idle.send(signal.SIGTERM)
    assert idle.wait() == 0
    busy.open_gate("a")
    ended(busy, [f"ok-{n}" for n in range(8)], "that one is heard when a thread is free")


def test_sigterm_under_load_leaves_every_bell_heard_or_in_the_broker(
    ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=SLOTS)
    brief = [f"brief-{n}" for n in range(100)]
    for job in brief:
        rung(ring, job)
    eventually(lambda: sum(map(worker.ended, brief)) > 20, log=worker.log)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert sum(map(worker.began, brief)) == sum(map(worker.ended, brief))
    eventually(lambda: sum(map(worker.ended, brief)) + (ring.unheard("service") or 0) >= 100)


def test_a_worker_declares_a_queue_anew_that_somebody_deleted(
    broker: RabbitMQ, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=SLOTS)
    with broker.channel() as channel:
        channel.queue_delete("service")
    eventually(lambda: worker.text().count("Connected to") > 1, what="it connects again", log=worker.log)
    rung(ring, "ok-after")
    ended(worker, ["ok-after"], "it consumes again")


def test_a_queue_of_another_kind_in_the_place_of_ours_is_named_and_ends_no_worker(
    broker: RabbitMQ, ring: CeleryRing, child: Callable[..., Child], caplog: pytest.LogCaptureFixture
) -> None:
    with broker.channel() as channel:
        channel.queue_delete("service")
        channel.queue_declare("service", durable=True, auto_delete=False)  # a classic one
    assert not ring.jobs(bells("lost"))
    assert "does not take bells (PreconditionFailed: " in caplog.text
    assert "inequivalent arg 'x-queue-type' for queue 'service'" in caplog.text
    worker = child()
    worker.start("worker", "--queues", "service", "--concurrency", "2", "--without-gossip", "--without-mingle")
    eventually(lambda: worker.text().count("inequivalent arg 'x-queue-type'") > 1, what="it says so", log=worker.log)
    with broker.channel() as channel:
        channel.queue_delete("service")
    ring_once(broker.url, "ok-after")
    ended(worker, ["ok-after"], "it works when that queue is gone")


def test_the_next_address_is_taken_where_the_first_does_not_answer(
    broker: RabbitMQ, child: Callable[..., Child]
) -> None:
    both = f"amqp://aswhom:x@127.0.0.1:{free_port()}/aswhom;{broker.url}"
    worker = child(RIG_BROKER=both)
    worker.work(concurrency=2)
    with closing(CeleryRing(publisher(both))) as ring:
        rung(ring, "ok-1")
    ended(worker, ["ok-1"], "it is heard")


def body(*arguments: object, **embed: object) -> str:
    return json.dumps([arguments, {}, embed])


def headers(task: Any = "aswhom.job", **more: Any) -> dict[str, Any]:
    return {"lang": "py", "task": task, "id": "forged", "root_id": "forged", **more}


PASSENGER = {"task": "os.system", "args": ["true"], "kwargs": {}, "options": {"queue": "service"}, "subtask_type": None}
# The body, and properties of the message.
POISON: list[tuple[str | bytes, dict[str, Any]]] = [
    ("not json", {}),
    ("", {}),
    (b"\x00\xff", {"content_type": "application/json", "content_encoding": "utf-8"}),
    ("{}", {"content_type": "application/json"}),
    (body("x"), {"application_headers": {}}),
    (body("x"), {"application_headers": headers(["aswhom.job"])}),
    (body("x"), {"application_headers": headers({"a": 1})}),
    (body("x"), {"application_headers": headers(7)}),
    (body("x"), {"application_headers": headers("os.system")}),
    (body("x"), {"application_headers": headers("celery.backend_cleanup")}),
    (body("x"), {"application_headers": headers(compression="zlib")}),
    (body("x"), {"application_headers": headers(compression=7)}),
    (body("x"), {"application_headers": headers(id=["f"])}),
    (body("x"), {"application_headers": headers(eta="not a time")}),
    (body("x"), {"application_headers": headers(eta="2999-01-01T00:00:00")}),
    (body("x"), {"application_headers": headers(expires="1999-01-01T00:00:00")}),
    (body("x"), {"application_headers": headers(expires=["x"])}),
    (body("x"), {"application_headers": headers(timelimit=[0.1, 0.1])}),
    (body("x"), {"application_headers": headers(retries="x", argsrepr=7, origin={}, shadow=["x"])}),
    (body("x"), {"application_headers": headers(), "content_type": "application/x-python-serialize"}),
    (body("x"), {"application_headers": headers(), "content_type": "application/x-yaml"}),
    (body("x"), {"application_headers": headers(), "content_encoding": "nobody-knows"}),
    (body("x"), {"application_headers": headers(), "reply_to": "service", "priority": 255}),
    ("%%%", {"application_headers": headers()}),
    ("null", {"application_headers": headers()}),
    ("[[]]", {"application_headers": headers()}),
    (body(), {"application_headers": headers()}),
    (body({"id": "x"}), {"application_headers": headers()}),
    (body("x" * 65), {"application_headers": headers()}),
    (body("x", chain=[PASSENGER]), {"application_headers": headers()}),
    (body("x", callbacks=[PASSENGER], errbacks=[PASSENGER], chord=PASSENGER), {"application_headers": headers()}),
    (body("x", callbacks="x", chain=7), {"application_headers": headers()}),
]


@pytest.mark.parametrize("times", [1, 3])
def test_poison_runs_nothing_is_not_delivered_again_and_holds_no_slot(
    broker: RabbitMQ, ring: CeleryRing, child: Callable[..., Child], times: int
) -> None:
    worker = child()
    worker.work(concurrency=2)
    with broker.channel() as channel:
        for number, (text, properties) in enumerate(POISON):
            raw = text if isinstance(text, bytes) else text.encode()
            said = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
            for _ in range(times):
                channel.basic_publish(amqp.Message(raw, **said), routing_key="service")
            rung(ring, f"ok-{number}")
            ended(worker, [f"ok-{number}"], f"the bell behind {text!r} {properties}")
    pair = ["held-a-1", "held-a-2"]
    for job in pair:
        rung(ring, job)
    eventually(lambda: all(map(worker.began, pair)), what="both slots are there", log=worker.log)
    eventually(lambda: broker.queues("messages")["service"] == ["0"], what="nothing is left in the queue")
    worker.open_gate("a")
    ended(worker, pair, "what ran ends")
    assert worker.running()
    assert worker.lines().count("opened") == 1
    assert worker.text().count("Connected to") == 1, "no message costs the connection"
    others = {line.split()[1] for line in worker.lines() if " " in line} - set(pair)
    assert others - {f"ok-{number}" for number in range(len(POISON))} <= {"x"}


def test_a_user_without_the_right_to_make_queues_is_told_of_and_bells_are_not_lost_silently(
    broker: RabbitMQ, tmp_path: Path, child: Callable[..., Child]
) -> None:
    worker = child(RIG_BROKER=broker.url_of("reader"))
    worker.start("worker", "--queues", "service", "--concurrency", "2", "--without-gossip", "--without-mingle")
    eventually(lambda: "ACCESS_REFUSED" in worker.text(), what="the worker says so", log=worker.log)
    with closing(CeleryRing(publisher(broker.url_of("reader")))) as ring:
        assert not ring.jobs(bells("ok-1"))
    assert worker.running()
