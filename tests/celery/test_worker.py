"""Bells against real worker processes."""

from __future__ import annotations

import signal
from collections.abc import Callable

from identity.model import AccessPattern
from pipeline.model import Bell
from pipeline.ring import CeleryRing
from tests.celery.rig import Child, eventually


def bells(*jobs: str, pattern: AccessPattern = AccessPattern.SERVICE) -> list[Bell]:
    return [Bell(job=job, tenant="t1", pattern=pattern) for job in jobs]


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


def test_sigterm_lets_running_tasks_finish_and_closes_what_was_opened(
    ring: CeleryRing, child: Callable[..., Child]
) -> None:
    worker = child()
    worker.work()
    ring.jobs(bells("held-a-1", "held-a-2"))
    eventually(lambda: worker.began("held-a-1") and worker.began("held-a-2"), log=worker.log)
    worker.send(signal.SIGTERM)
    eventually(lambda: "Warm shutdown" in worker.text(), what="the worker was asked", log=worker.log)
    worker.open_gate("a")
    assert worker.wait() == 0
    assert sorted(worker.lines()[-3:-1]) == ["ended held-a-1", "ended held-a-2"]
    assert worker.lines()[-1] == "closed"
