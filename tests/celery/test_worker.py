"""Bells against real worker processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest

from identity.model import AccessPattern
from pipeline.broker.ring import CeleryRing
from tests.celery.rig import Child, bells, ring_once
from tests.servers.valkey import Valkey
from tests.waiting import eventually


def test_bells_of_every_pattern_and_revocations_arrive(ring: CeleryRing, child: Callable[..., Child]) -> None:
    worker = child()
    worker.work()
    for pattern in AccessPattern:
        ring.jobs(bells(f"ok-{pattern}", pattern=pattern))
    ring.revocations(["r1", "r2"])
    expected = {"opened", "advanced r1", "advanced r2"}
    for pattern in AccessPattern:
        expected |= {f"began ok-{pattern}", f"ended ok-{pattern}"}
    eventually(lambda: set(worker.lines()) >= expected, what="every bell was heard", log=worker.log)
    assert sorted(worker.lines()) == sorted(expected)


def test_bells_arrive_over_a_unix_socket(broker: Valkey, child: Callable[..., Child]) -> None:
    worker = child(RIG_BROKER=broker.celery_socket_url)
    worker.work()
    ring_once(broker.celery_socket_url, "ok-1")
    eventually(lambda: worker.ended("ok-1"), log=worker.log)
    broker.kill()
    eventually(lambda: "Cannot connect" in worker.text(), what="the loss is noticed", log=worker.log)
    broker.start()
    ring_once(broker.celery_socket_url, "ok-2")
    eventually(lambda: worker.ended("ok-2"), log=worker.log)


def test_a_worker_keeps_nothing_in_the_broker_but_the_bindings(
    broker: Valkey, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=2)
    ring.jobs(bells("ok-1", "held-a-1"))
    eventually(lambda: worker.ended("ok-1") and worker.began("held-a-1"), log=worker.log)
    with broker.client() as client:
        assert {key.partition(".")[0] for key in client.scan_iter()} == {"aswhom:_kombu"}
        # And it asks for no removal of what is not there: an acknowledgement would.
        assert not {"cmdstat_zrem", "cmdstat_hdel"} & set(client.info("commandstats"))


def test_sigterm_lets_running_tasks_finish_and_closes_what_was_opened(
    ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work()
    ring.jobs(bells("held-a-1", "held-a-2"))
    eventually(lambda: worker.began("held-a-1") and worker.began("held-a-2"), log=worker.log)
    worker.send(signal.SIGTERM)
    eventually(lambda: "Warm shutdown" in worker.text(), what="the worker was asked", log=worker.log)
    eventually(lambda: "winds down" in worker.lines(), what="what runs is told", log=worker.log)
    worker.open_gate("a")
    assert worker.wait() == 0
    assert sorted(worker.lines()[-3:-1]) == ["ended held-a-1", "ended held-a-2"]
    assert worker.lines()[-1] == "closed"


@pytest.mark.parametrize("end", ["error", "exit", "base"])
def test_no_kind_of_exception_leaks_a_slot(ring: CeleryRing, child: Callable[..., Child], end: str) -> None:
    worker = child()
    worker.work(concurrency=2)
    jobs = [f"{end}-{n}" for n in range(6)]
    ring.jobs(bells(*jobs))
    eventually(lambda: all(map(worker.began, jobs)), what="each one had a slot", log=worker.log)
    ring.jobs(bells("ok-after-1", "ok-after-2"))
    eventually(lambda: worker.ended("ok-after-1") and worker.ended("ok-after-2"), log=worker.log)


@pytest.mark.slow
def test_stock_threads_leak_a_slot_by_every_base_exception(ring: CeleryRing, child: Callable[..., Child]) -> None:
    worker = child(RIG_CONF=json.dumps({"worker_pool": "threads"}))
    worker.work(concurrency=2)
    ring.jobs(bells("base-1", "base-2"))
    eventually(lambda: worker.began("base-1") and worker.began("base-2"), log=worker.log)
    ring.jobs(bells("ok-after"))
    with pytest.raises(AssertionError):
        eventually(lambda: worker.ended("ok-after"), seconds=10)


@pytest.mark.parametrize(("fault", "code"), [("broken", 1), ("misconfigured", os.EX_CONFIG)])
def test_a_worker_whose_ledger_cannot_be_opened_does_not_start(
    child: Callable[..., Child], fault: str, code: int
) -> None:
    worker = child(RIG_UNOPENABLE=fault)
    worker.start("worker", "--queues", "service")
    assert worker.wait() == code
    assert "the worker cannot start" in worker.text()


def test_a_beat_that_is_misconfigured_says_so_and_ends(child: Callable[..., Child]) -> None:
    beat = child("beat", RIG_UNOPENABLE="misconfigured")
    beat.start("beat", "--scheduler", "pipeline.schedules.beat:Scheduler")
    assert beat.wait() == os.EX_CONFIG
    assert "set ASWHOM_LEDGER" in beat.text()
    assert "Traceback" not in beat.text()


def test_sigterm_under_load_takes_no_bell_it_cannot_answer(
    broker: Valkey, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work(concurrency=4)
    jobs = [f"brief-{n}" for n in range(200)]
    ring.jobs(bells(*jobs))
    eventually(lambda: sum(map(worker.ended, jobs)) > 20, log=worker.log)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    began, ended = sum(map(worker.began, jobs)), sum(map(worker.ended, jobs))
    with broker.client() as client:
        left = int(client.llen("aswhom:service"))
    assert began == ended
    # One bell may be on the wire when the connection closes; the dispatcher rings for it again.
    assert 200 - (ended + left) <= 1


def test_a_free_slot_is_used_at_once(ring: CeleryRing, child: Callable[..., Child]) -> None:
    worker = child()
    worker.work(concurrency=1)
    ring.jobs(bells(*(f"brief-{n}" for n in range(40))))
    eventually(lambda: worker.began("brief-0"), log=worker.log)
    # 40 × 50 ms; a loop that is not woken by a free slot adds up to a second to each
    eventually(lambda: worker.ended("brief-39"), seconds=15, log=worker.log)


@pytest.mark.slow
def test_stock_threads_without_prefetch_leave_a_free_slot_unused(ring: CeleryRing, child: Callable[..., Child]) -> None:
    worker = child(RIG_CONF=json.dumps({"worker_pool": "threads"}))
    worker.work(concurrency=1)
    ring.jobs(bells(*(f"brief-{n}" for n in range(40))))
    eventually(lambda: worker.began("brief-0"), log=worker.log)
    with pytest.raises(AssertionError):
        eventually(lambda: worker.ended("brief-39"), seconds=8)
