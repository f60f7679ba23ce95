"""A worker that lives and takes no bells is seen; one that is busy, or waits for its broker, is not taken for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta

from pipeline.broker.liveness import Hearing
from pipeline.broker.ring import CeleryRing
from tests.celery.rig import Asked, Child, bells
from tests.servers.valkey import Valkey
from tests.waiting import eventually


def test_who_has_not_begun_or_was_told_to_stop_is_not_deaf() -> None:
    now = [0.0]
    hearing = Hearing(monotonic=lambda: now[0])
    now[0] += 1000
    assert hearing.is_well()
    hearing.listens()
    now[0] += 60
    assert hearing.is_well()
    now[0] += 1
    assert not hearing.is_well()
    assert hearing.is_well(timedelta(seconds=61))
    hearing.tries()
    assert hearing.is_well()
    now[0] += 61
    hearing.end()
    assert hearing.is_well()


def test_a_worker_listens_while_it_is_idle_busy_and_without_a_broker(
    broker: Valkey, ring: CeleryRing, child: Callable[..., Child]
) -> None:
    asked = Asked()
    worker = child(RIG_HEARD=str(asked.port))
    worker.work(concurrency=1)

    def listens_from(moment: float) -> None:
        eventually(lambda: asked.listened() > moment, log=worker.log)

    listens_from(time.time() + 2)
    ring.jobs(bells("held-a-1"))
    eventually(lambda: worker.began("held-a-1"), log=worker.log)
    listens_from(time.time() + 2)
    worker.open_gate("a")
    broker.kill()
    eventually(lambda: worker.text().count("Cannot connect") > 4, what="it tries", log=worker.log)
    assert asked.is_well()
    assert asked.listened() < time.time() - 5
    broker.start()
    listens_from(time.time() + 2)


def test_a_worker_whose_loop_stands_still_is_deaf(child: Callable[..., Child]) -> None:
    asked = Asked()
    worker = child(
        RIG_HEARD=str(asked.port), RIG_CONF=json.dumps({"worker_consumer": "tests.celery.pools:StandsStill"})
    )
    worker.work(concurrency=1)
    assert asked.is_well()
    eventually(lambda: not asked.is_well(), what="it is deaf", log=worker.log)
