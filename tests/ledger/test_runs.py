"""A function that is run again: what it did stands, and it must ask for the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Row, select, update

from pipeline import reconcile
from pipeline.run import Run
from pipeline.states import JobState
from pipeline.tables import jobs, steps
from tests.ledger.house import House, Say
from tests.ledger.office import Office

HOUR = timedelta(hours=1)
TOKEN = "token-acme.ada-1"


def declare(office: Office, function: Callable[[Run[Any], Any], None]) -> None:
    """What the worker runs from now on, under the same name."""
    office.house.workflow = replace(office.house.workflow, function=function)


def steps_of(house: House) -> list[Row[Any]]:
    return list(house.database.read(lambda c: c.execute(select(steps).order_by(steps.c.position)).all()))


def wake(house: House) -> None:
    """What waits for a moment looks whether it has come."""
    now = update(jobs).where(jobs.c.state == JobState.WAITING).values(due_at=jobs.c.created_at)
    house.database.write(lambda c: c.execute(now).rowcount)
    reconcile.wake_due(house.database)


def say_and_sleep(run: Run[Any], event: Any) -> None:
    run.do(Say(text="before"), as_=run.user)
    run.sleep(HOUR)
    run.do(Say(text="after"), as_=run.user)


# divergence


def says_another_thing(run: Run[Any], event: Any) -> None:
    run.do(Say(text="another"), as_=run.user)


def says_it_as_another(run: Run[Any], event: Any) -> None:
    run.do(Say(text="before"), as_=run.service)


def sleeps_first(run: Run[Any], event: Any) -> None:
    run.sleep(HOUR)


@pytest.mark.parametrize(
    ("function", "asked", "different"),
    [
        (says_another_thing, "github.Say as user", "request_hash"),
        (says_it_as_another, "github.Say as service", "named"),
        (sleeps_first, "run.sleep as policy", "action, named, request_hash"),
    ],
)
def test_a_function_that_asks_for_another_step_ends_its_job_by_the_steps_name(
    office: Office, function: Callable[[Run[Any], Any], None], asked: str, different: str
) -> None:
    declare(office, say_and_sleep)
    job = office.house.job()
    office.work(job)
    before = steps_of(office.house)
    declare(office, function)
    wake(office.house)
    office.work(job)
    row = office.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.DEAD, 0)
    assert row.reason.startswith(f"Diverged: step 1 was github.Say as user, and now the workflow asks for {asked} ")
    assert f"(different: {different})" in row.reason
    assert office.tokens == [TOKEN]
    assert steps_of(office.house) == before


def test_a_function_that_sleeps_for_another_time_has_diverged(office: Office) -> None:
    def says_and_sleeps_longer(run: Run[Any], event: Any) -> None:
        run.do(Say(text="before"), as_=run.user)
        run.sleep(HOUR * 2)

    declare(office, say_and_sleep)
    job = office.house.job()
    office.work(job)
    declare(office, says_and_sleeps_longer)
    wake(office.house)
    office.work(job)
    row = office.house.row(job)
    assert row.state == JobState.DEAD
    assert row.reason.startswith("Diverged: step 2 was run.sleep as policy")
