"""Ends of jobs are counted by the commit that made them, once, whoever made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, update

from identity.capability.issuer import Issuer
from identity.errors import Misconfigured
from identity.minting.confined import Confiner
from identity.model import AccessPattern
from identity.refresh.coordinator import Coordinator
from pipeline.authoring.registry import Registry
from pipeline.duties import reconcile
from pipeline.execution.interruption import RunAgain, RunEnded
from pipeline.execution.services import Services
from pipeline.execution.worker import Worker, WorkerSettings
from pipeline.jobs import claims
from pipeline.jobs.moves import move_job
from pipeline.run import Run
from pipeline.states import JobState, Wait
from pipeline.tables import jobs as jobs_table
from pipeline.throttle.breaker import Breakers
from pipeline.throttle.budget import Budgets
from pipeline.throttle.in_flight import InFlight
from pipeline.upstream import Upstream
from tests.ledger.acts import lapse
from tests.ledger.house import House
from tests.webhooks.parts import MemoryRing

SETTINGS = WorkerSettings(runs=1, backoff=timedelta())


def ends() -> dict[str, float]:
    """What was counted so far: by outcome, and dead letters."""
    counted = {
        str(state): REGISTRY.get_sample_value(
            "aswhom_jobs_finished_total", {"pattern": "hybrid", "outcome": str(state)}
        )
        for state in (JobState.DONE, JobState.CANCELLED, JobState.DEAD)
    }
    counted["letters"] = REGISTRY.get_sample_value("aswhom_dead_letters_total", {"pattern": "hybrid"})
    return {name: number or 0.0 for name, number in counted.items()}


class Since:
    """What was counted since it was made."""

    def __init__(self) -> None:
        self._before = ends()

    @property
    def counted(self) -> dict[str, float]:
        return {name: number - self._before[name] for name, number in ends().items() if number > self._before[name]}


def work(house: House, function: Callable[[Run[Any], Any], None], job: str) -> None:
    """Have a worker run *job* with *function* as its workflow's."""
    services = Services(
        store=house.database,
        vault=house.vault,
        coordinator=cast("Coordinator", None),  # no step is taken
        upstream=cast("Upstream", None),
        issuer=cast("Issuer", None),
        ids=house.ids,
        settings=cast("Any", None),
        confiner=cast("Confiner", None),
        budgets=cast("Budgets", None),
        breakers=cast("Breakers", None),
        in_flight=cast("InFlight", None),
    )
    workflows = Registry([replace(house.workflow, function=function)])
    Worker(services, workflows, MemoryRing(), SETTINGS).handle(job)


def test_ends_are_exposed_before_the_first_so_that_a_share_of_them_is_right_after_a_restart() -> None:
    """Prometheus sees no increase from nothing to what was counted before its first scrape."""
    for pattern in AccessPattern:
        for outcome in ("done", "cancelled", "dead"):
            labels = {"pattern": str(pattern), "outcome": outcome}
            assert REGISTRY.get_sample_value("aswhom_jobs_finished_total", labels) is not None, labels


def test_a_claim_that_lapses_into_death_in_housekeeping_is_counted(house: House) -> None:
    job = house.job()
    house.claim(job)
    lapse(house, job)
    since = Since()
    reconcile.reclaim(house.database, SETTINGS)
    reconcile.reclaim(house.database, SETTINGS)
    assert house.row(job).state == JobState.DEAD
    assert since.counted == {"dead": 1, "letters": 1}


def test_a_wait_that_expires_is_counted(house: House) -> None:
    job, now = house.job(), timedelta()
    park = partial(claims.park, wait=Wait.CONSENT, waits_for="account:x", due_in=now, expires_in=now, reason="ada")
    house.database.write(partial(park, job=house.claim(job)))
    since = Since()
    reconcile.wake_due(house.database)
    reconcile.wake_due(house.database)
    assert since.counted == {"dead": 1, "letters": 1}


def test_a_job_that_a_worker_ends_is_counted_once(house: House) -> None:
    since = Since()
    work(house, lambda run, event: None, house.job())
    assert since.counted == {"done": 1}


def _fail(run: Run[Any], event: Any) -> None:
    raise ValueError("a bug")


def test_a_job_that_dies_in_a_worker_is_a_dead_letter(house: House) -> None:
    since = Since()
    work(house, _fail, house.job())
    assert since.counted == {"dead": 1, "letters": 1}


@pytest.mark.parametrize("ending", [None, ValueError("late"), RunAgain("late", delay=timedelta())], ids=repr)
def test_a_worker_that_lost_its_job_does_not_count_the_end_another_gave_it(
    house: House, ending: BaseException | None
) -> None:
    job = house.job()

    def overtaken(run: Run[Any], event: Any) -> None:
        lapse(house, job)
        reconcile.reclaim(house.database, SETTINGS)  # dead: counted there
        if ending is not None:
            raise ending

    since = Since()
    work(house, overtaken, job)
    assert house.row(job).state == JobState.DEAD
    assert since.counted == {"dead": 1, "letters": 1}


def test_a_job_that_was_cancelled_after_it_parked_is_not_counted_by_the_run_that_parked_it(house: House) -> None:
    job = house.job()

    def parked(run: Run[Any], event: Any) -> None:
        cancelled = update(jobs_table).where(jobs_table.c.id == job).values(state=JobState.CANCELLED)
        house.database.write(lambda c: c.execute(cancelled).rowcount)
        raise RunEnded("parked, and then somebody cancelled it", moved=JobState.WAITING)

    since = Since()
    work(house, parked, job)
    assert since.counted == {}


def test_a_job_that_an_opening_cancelled_is_counted_by_its_run(house: House) -> None:
    job = house.job()

    def refused(run: Run[Any], event: Any) -> None:
        house.database.write(partial(move_job, job=job, to=JobState.CANCELLED))
        raise RunEnded("the rule refused it", moved=JobState.CANCELLED)

    since = Since()
    work(house, refused, job)
    assert since.counted == {"cancelled": 1}


def test_a_finally_that_acts_does_not_hide_how_the_run_ended() -> None:
    class Steps:
        def perform(self, *_: object, **__: object) -> Any:
            raise RunAgain("the provider is away", delay=timedelta())

        sleep = perform

    run = Run(cast("Any", Steps()), job="j", tenant="acme", config=cast("Any", None), has_user=True)

    def acts_in_a_finally() -> None:
        try:
            run.sleep(timedelta(1))
        finally:
            run.sleep(timedelta(2))

    with pytest.raises(RunAgain):
        acts_in_a_finally()


def test_each_run_that_meets_an_operators_mistake_is_counted(house: House) -> None:
    """Its job neither dies nor grows old in the queue, so nothing else would tell of it."""

    def counted() -> float:
        return REGISTRY.get_sample_value("aswhom_misconfigured_runs_total", {"pattern": "hybrid"}) or 0.0

    def misconfigured(run: Run[Any], event: Any) -> None:
        raise Misconfigured("no key is here")

    before, job = counted(), house.job()
    for met in (1, 2):
        work(house, misconfigured, job)
        assert (counted() - before, house.row(job).state) == (met, JobState.QUEUED)
        due = update(jobs_table).where(jobs_table.c.id == job).values(due_at=jobs_table.c.created_at)
        house.database.write(partial(Connection.execute, statement=due))
