"""Whoever can write to the broker can put anything into a queue: none of it runs, and none of it stops the work."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pipeline.broker.ring import CeleryRing
from tests.celery.rig import Child, bells, publisher, ring_once
from tests.servers.valkey import Valkey
from tests.waiting import eventually

QUEUE = "aswhom:service"


def forged(task: Any, arguments: Any = (), **changes: Any) -> str:
    """A message as Celery would write it, with what a forger likes in it."""
    body = json.dumps([list(arguments), {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": task, "id": "forged", "root_id": "forged"},
            "properties": {
                "correlation_id": "forged",
                "delivery_info": {"exchange": "", "routing_key": "service"},
                "delivery_tag": "forged",
                "body_encoding": "base64",
            },
            **changes,
        }
    )


JUNK = [
    "not json",
    "",
    "\x00\xff",
    "[1, 2]",
    "{}",
    '"text"',
    "null",
    "7",
    '{"properties": null}',
    '{"properties": {"delivery_tag": "t"}, "body": "x"}',
    forged("aswhom.job", ["ok-1"], headers=None),
    forged("aswhom.job", ["ok-1"], headers={}),
    forged(["aswhom.job"], ["ok-1"]),
    forged(None, ["ok-1"]),
    forged("aswhom.job", ["ok-1"], body="%%%"),
]

REFUSED = [
    forged("os.system", ["true"]),
    forged("celery.backend_cleanup"),
    forged("celery.starmap", [{"task": "aswhom.job"}, [["ok-1"]]]),
    forged("aswhom.job", [{"id": "ok-1"}]),
    forged("aswhom.job", [["ok-1"]]),
    forged("aswhom.job", ["x" * 65]),
    forged("aswhom.job", [""]),
    forged("aswhom.job", []),
    forged("aswhom.job", ["ok-1", "ok-2"]),
    forged("aswhom.job", ["ok-1"], **{"content-type": "application/x-python-serialize"}),
    forged("aswhom.job", ["ok-1"], **{"content-type": "application/x-yaml"}),
]


def test_messages_that_are_no_bell_of_ours_run_nothing(broker: Valkey, child: Callable[..., Child]) -> None:
    worker = child()
    worker.work(concurrency=2)
    with broker.client() as client:
        for message in REFUSED:
            client.lpush(QUEUE, message)
    ring_once(broker.url, "ok-after")
    eventually(lambda: worker.ended("ok-after"), what="the bell behind them is heard", log=worker.log)
    eventually(lambda: worker.text().count("ERROR") + worker.text().count("CRITICAL") >= len(REFUSED), log=worker.log)
    assert worker.lines() == ["opened", "began ok-after", "ended ok-after"]


def laden(**embed: Any) -> str:
    """A good id with a passenger: what Celery would do after the task."""
    body = json.dumps([["ok-laden"], {}, embed])
    return forged("aswhom.job", body=base64.b64encode(body.encode()).decode())


PASSENGER = {"task": "os.system", "args": ["true"], "kwargs": {}, "options": {"queue": "service"}, "subtask_type": None}
LADEN = [
    laden(callbacks=[PASSENGER]),
    laden(errbacks=[PASSENGER]),
    laden(chain=[PASSENGER]),
    laden(chord=PASSENGER),
    laden(callbacks="x", chain=7),
    forged("aswhom.job", ["ok-laden"], headers={"task": "aswhom.job", "id": "f", "eta": "not a time"}),
    forged("aswhom.job", ["ok-laden"], headers={"task": "aswhom.job", "id": "f", "eta": "2999-01-01T00:00:00"}),
    forged("aswhom.job", ["ok-laden"], headers={"task": "aswhom.job", "id": "f", "expires": "1999-01-01T00:00:00"}),
    forged("aswhom.job", ["ok-laden"], headers={"task": "aswhom.job", "id": "f", "timelimit": [0.1, 0.1]}),
    forged("aswhom.job", ["ok-laden"], headers={"task": "aswhom.job", "id": ["f"]}),
]


def test_what_a_forger_hangs_on_a_bell_runs_nothing_and_takes_no_slot(
    broker: Valkey, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=2)
    for number, message in enumerate(LADEN):
        with broker.client() as client:
            for _ in range(3):
                client.lpush(QUEUE, message)
        pair = [f"held-{number}-a", f"held-{number}-b"]  # both slots are still there
        ring.jobs(bells(*pair))
        eventually(partial(all_began, worker, pair), what=f"two slots after {message}", log=worker.log)
        worker.open_gate(str(number))
    assert worker.running()
    assert {line.split()[1] for line in worker.lines() if "held" not in line and " " in line} == {"ok-laden"}


def all_began(worker: Child, jobs: list[str]) -> bool:
    return all(map(worker.began, jobs))


def test_only_our_two_tasks_can_be_run(broker: Valkey) -> None:
    assert set(publisher(broker.url).tasks) == {"aswhom.job", "aswhom.revocation"}


def test_raw_junk_is_set_aside_and_the_worker_goes_on(
    broker: Valkey, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=2)
    ring.jobs(bells("held-a-0"))
    eventually(lambda: worker.began("held-a-0"), log=worker.log)
    for number, item in enumerate(JUNK):
        with broker.client() as client:
            client.lpush(QUEUE, item)
        ring.jobs(bells(f"ok-{number}"))
        heard = partial(worker.ended, f"ok-{number}")
        eventually(heard, what=f"the bell after {item!r}", log=worker.log)
    worker.open_gate("a")
    eventually(lambda: worker.ended("held-a-0"), what="what ran all the while ends", log=worker.log)
    assert worker.running()
    assert worker.lines().count("opened") == 1
    with broker.client() as client:
        assert client.llen(QUEUE) == 0


def test_a_heap_of_junk_costs_no_bell_for_good(broker: Valkey, ring: CeleryRing, child: Callable[..., Child]) -> None:
    with broker.client() as client:
        for number in range(30):
            client.lpush(QUEUE, JUNK[number % len(JUNK)])
    worker = child()
    worker.work(concurrency=2)
    ring.jobs(bells("ok-behind"))
    with broker.client() as client:
        eventually(lambda: client.llen(QUEUE) == 0, what="the heap is gone", log=worker.log)
    ring.jobs(bells("ok-again"))  # as the dispatcher does
    eventually(lambda: worker.ended("ok-again"), log=worker.log)
    assert worker.running()


def test_a_key_of_another_type_in_the_place_of_a_queue_ends_no_worker(
    broker: Valkey, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=2)
    ring.jobs(bells("held-a-0"))
    eventually(lambda: worker.began("held-a-0"), log=worker.log)
    with broker.client() as client:
        client.set(QUEUE, "x")
        eventually(lambda: worker.text().count("WRONGTYPE") > 1, what="it meets the key, and again", log=worker.log)
        client.delete(QUEUE)
    ring_once(broker.url, "ok-after")
    eventually(lambda: worker.ended("ok-after"), what="it works when the key is gone", log=worker.log)
    worker.open_gate("a")
    eventually(lambda: worker.ended("held-a-0"), what="what ran all the while ends", log=worker.log)
    assert worker.lines().count("opened") == 1


@pytest.mark.slow
def test_stock_celery_dies_of_junk(broker: Valkey, child: Callable[..., Child]) -> None:
    worker = child(RIG_CONF=json.dumps({"worker_consumer": "celery.worker.consumer:Consumer"}))
    worker.work(concurrency=2)
    with broker.client() as client:
        client.lpush(QUEUE, "not json")
    assert worker.wait() != 0
