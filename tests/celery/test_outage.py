"""A broker that is killed while every slot is taken must not leave a worker deaf.

Stock Celery does become deaf: acks of tasks that start during the outage fail, each failed ack keeps its prefetch slot,
and with all slots kept nothing is ever fetched again. One test shows that, with Celery's own pool, consumer and acks.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import pytest
import redis

from pipeline.broker.ring import CeleryRing
from tests.celery.rig import Child, Sentinel, bells, publisher, ring_once
from tests.servers.valkey import Valkey
from tests.waiting import eventually

SLOTS = 4
STOCK = json.dumps(
    {
        "worker_pool": "threads",
        "worker_consumer": "celery.worker.consumer:Consumer",
        "worker_disable_prefetch": False,
    }
)


def saturate(server: Valkey, worker: Child, gate: str) -> list[str]:
    """Take every slot, and leave as many again waiting; none ends before the gate opens."""
    jobs = [f"held-{gate}-{n}" for n in range(2 * SLOTS)]
    ring_once(server.url, *jobs)
    eventually(lambda: sum(map(worker.began, jobs)) >= SLOTS, what="every slot is taken", log=worker.log)
    return jobs


def kill_while_saturated(server: Valkey, worker: Child, gate: str) -> None:
    """Take the broker away until the worker has seen it, while its tasks end."""
    losses = worker.text().count("Connection to broker lost")
    jobs = saturate(server, worker, gate)
    server.kill()
    worker.open_gate(gate)
    eventually(lambda: sum(map(worker.ended, jobs)) >= SLOTS, what="what ran ends without a broker", log=worker.log)
    eventually(lambda: worker.text().count("Connection to broker lost") > losses, what="it is noticed", log=worker.log)
    server.start()


def hears(server: Valkey, worker: Child, job: str, *, seconds: float) -> bool:
    ring_once(server.url, job)
    with suppress(AssertionError):
        eventually(lambda: worker.ended(job), seconds=seconds)
    return worker.ended(job)


@pytest.mark.timeout(900)
def test_a_saturated_worker_consumes_again_after_each_of_six_broker_kills(
    broker: Valkey, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=SLOTS)
    for kill in range(6):
        kill_while_saturated(broker, worker, f"k{kill}")
        # That the pause between attempts is capped, `test_consumer` holds.
        assert hears(broker, worker, f"ok-probe-{kill}", seconds=60), worker.text()
    assert worker.running()


@pytest.mark.slow
def test_a_busy_worker_hears_every_probe_after_six_broker_kills(broker: Valkey, child: Callable[..., Child]) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    worker = child()
    worker.work(concurrency=SLOTS)
    stop = threading.Event()

    def load() -> None:
        with closing(CeleryRing(publisher(broker.url))) as ring:
            for number in count(step=5):
                if stop.wait(0.02):
                    return
                ring.jobs(bells(*(f"brief-{number + n}" for n in range(5))))

    loader = threading.Thread(target=load)
    loader.start()
    try:
        for _ in range(6):
            stop.wait(chance.uniform(0.5, 3))
            broker.kill()
            stop.wait(chance.uniform(0.1, 3))
            broker.start()
    finally:
        stop.set()
        loader.join()
    probes = [f"ok-probe-{n}" for n in range(400)]
    ring_once(broker.url, *probes)
    eventually(lambda: all(map(worker.ended, probes[-1:])), seconds=120, what="the last probe", log=worker.log)
    eventually(lambda: sum(line.startswith("ended ok-probe") for line in worker.lines()) == 400, log=worker.log)
    assert worker.running()


@pytest.mark.slow
def test_stock_threads_stay_deaf_after_a_broker_kill(broker: Valkey, child: Callable[..., Child]) -> None:
    worker = child(RIG_CONF=STOCK, RIG_ACK="1")
    worker.work(concurrency=SLOTS)
    jobs = saturate(broker, worker, "stock")
    with broker.client() as client:
        eventually(lambda: client.hlen("aswhom:unacked") >= SLOTS, what="as many more are prefetched", log=worker.log)
    broker.kill()
    worker.open_gate("stock")
    eventually(lambda: sum(map(worker.ended, jobs)) == len(jobs), what="what ran ends", log=worker.log)
    eventually(lambda: worker.text().count("Couldn't ack") >= SLOTS, what="the acks fail", log=worker.log)
    broker.start()
    assert not hears(broker, worker, "ok-probe", seconds=30)
    assert "Connection to broker lost" not in worker.text()
    assert worker.running()


def test_a_worker_waits_for_a_broker_that_is_late(broker: Valkey, child: Callable[..., Child]) -> None:
    broker.kill()
    worker = child()
    worker.start("worker", "--queues", "service", "--concurrency", "2", "--without-gossip", "--without-mingle")
    eventually(lambda: "Cannot connect" in worker.text(), what="it tries", log=worker.log)
    broker.start()
    assert hears(broker, worker, "ok-late", seconds=60), worker.text()


def test_a_worker_consumes_again_after_the_broker_was_frozen(broker: Valkey, child: Callable[..., Child]) -> None:
    worker = child()
    worker.work(concurrency=SLOTS)
    assert hears(broker, worker, "ok-before", seconds=60)
    broker.pause()
    try:
        ring_once(broker.url, "ok-during")
    finally:
        broker.resume()
    assert hears(broker, worker, "ok-after", seconds=60), worker.text()


def test_a_worker_consumes_again_after_the_broker_forgot_everything(
    broker: Valkey, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=SLOTS)
    with broker.client() as client:
        client.flushall()
        with suppress(redis.ConnectionError):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert hears(broker, worker, "ok-after", seconds=60), worker.text()


def test_a_worker_consumes_again_from_a_broker_that_was_a_replica_for_a_while(
    broker: Valkey, child: Callable[..., Child]
) -> None:
    """A planned failover, seen from the old primary: who waits in BRPOP is thrown out, and who asks again refused."""
    worker = child()
    worker.work(concurrency=SLOTS)
    assert hears(broker, worker, "ok-before", seconds=60)
    with broker.client() as client:
        client.replicaof("127.0.0.1", "1")
        eventually(lambda: "Connection to broker lost" in worker.text(), what="it is noticed", log=worker.log)
        client.replicaof("NO", "ONE")
    assert hears(broker, worker, "ok-after", seconds=60), worker.text()
    assert worker.lines().count("opened") == 1


@pytest.mark.slow
def test_a_worker_gives_up_a_frozen_broker_and_consumes_when_it_thaws(
    broker: Valkey, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=SLOTS)
    broker.pause()
    try:
        eventually(lambda: "BRPOP got no reply" in worker.text(), what="it is noticed", log=worker.log)
        eventually(lambda: "Connection to broker lost" in worker.text(), log=worker.log)
    finally:
        broker.resume()
    assert hears(broker, worker, "ok-after", seconds=60), worker.text()


@pytest.mark.slow
def test_a_saturated_worker_follows_a_sentinel_failover(
    broker: Valkey, tmp_path: Path, child: Callable[..., Child]
) -> None:
    (tmp_path / "replica").mkdir()
    replica = Valkey(tmp_path / "replica", replica_of=broker)
    sentinel = Sentinel(broker, tmp_path)
    options = {"master_name": "aswhom"}
    worker = child(RIG_BROKER=sentinel.url, RIG_OPTIONS=json.dumps(options))
    try:
        replica.start()
        sentinel.start()
        worker.work(concurrency=SLOTS)
        jobs = [f"held-s-{n}" for n in range(2 * SLOTS)]
        ring_once(sentinel.url, *jobs, options=options)
        eventually(lambda: sum(map(worker.began, jobs)) >= SLOTS, what="every slot is taken", log=worker.log)
        broker.kill()
        worker.open_gate("s")
        eventually(lambda: sum(map(worker.ended, jobs)) >= SLOTS, what="what ran ends", log=worker.log)

        def heard() -> bool:
            ring_once(sentinel.url, "ok-after", options=options)  # as the dispatcher does
            return worker.ended("ok-after")

        eventually(heard, what="the new primary is consumed from", log=worker.log)
        assert worker.running()
    finally:
        sentinel.kill()
        replica.stop()
