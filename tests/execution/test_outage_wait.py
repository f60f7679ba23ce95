"""A step waits for its upstream once, whatever that answers meanwhile, and fails when it was in vain."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest

from pipeline.action import Facts, Recovery
from pipeline.execution.services import StepSettings
from pipeline.ledger.clock import ledger_now
from pipeline.run import ActionFailed, Run, UpstreamGone
from pipeline.states import CountsAs, JobState, StepState
from pipeline.workflow import USER
from tasks.refusals import Postponed
from tests.identity.providers import Reply, reply
from tests.ledger.acts import attempts_of, steps_of
from tests.ledger.house import Say
from tests.ledger.outages import HOUR, MINUTE, Passing, Upstream, saying, until_it_waits
from tests.ledger.workers import Workers, declare
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE


class KeyedSay(Say):
    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.KEYED)


@pytest.fixture
def passing(workers: Workers) -> Passing:
    return Passing(workers)


def test_an_upstream_that_comes_back_by_fits_and_starts_kills_no_step(passing: Passing) -> None:
    """Its limit and its errors alternate, as they do when everybody returns at once."""
    answered = itertools.cycle([(429, {"retry_after": "10"}), (503, {}), (502, {}), (429, {})])

    def call(token: str) -> Reply:
        status, headers = next(answered)
        return reply({}, status, **headers)

    passing.workers.provider.call = call
    house = passing.house
    house.workflow = replace(house.workflow, function=partial(saying, KeyedSay), uses={KeyedSay: USER})
    job = passing.house.job()
    for _ in range(3 * HOUR // MINUTE):
        passing.work()
        passing.passes(MINUTE)
    assert passing.house.row(job).state in (JobState.QUEUED, JobState.WAITING), passing.house.row(job).reason
    made = attempts_of(passing.house)
    assert len(made) > 2 * passing.settings.attempts
    assert {row.counts_as for row in made} == {CountsAs.UNSPENT}
    passing.workers.provider.call = lambda token: reply({"id": "7"})
    passing.passes(HOUR)
    passing.work()
    assert passing.house.row(job).state == JobState.DONE


def test_a_step_waits_for_its_upstream_until_one_date_whatever_that_answers(passing: Passing) -> None:
    upstream = Upstream(passing.workers, 503)
    job = passing.house.job()
    until_it_waits(passing, job)
    until = passing.house.row(job).expires_at - passing.house.database.read(ledger_now)
    passing.workers.provider.call = lambda token: reply({}, 429, retry_after="60")
    passing.passes(20 * HOUR)
    passing.work()
    row = passing.house.row(job)
    assert row.state == JobState.QUEUED
    assert row.expires_at - passing.house.database.read(ledger_now) <= until - 20 * HOUR
    passing.passes(6 * HOUR)
    passing.work()
    assert attempts_of(passing.house)[-1].counts_as is None, "its time is over"
    passing.workers.provider.call = upstream.call  # type: ignore[assignment]
    for _ in range(HOUR // MINUTE):
        passing.work()
        passing.passes(MINUTE)
    assert passing.house.row(job).state == JobState.DEAD


@pytest.mark.parametrize("attempts", [5, 100])
def test_a_wait_in_vain_fails_its_step_however_few_attempts_counted_and_a_workflow_may_go_on(
    passing: Passing, attempts: int
) -> None:
    def goes_on(run: Run[Any], event: Any) -> None:
        with suppress(ActionFailed):
            run.do(Say(text="hello"), as_=run.user)

    passing.settings = StepSettings(attempts=attempts, upstream_wait=2 * HOUR)
    declare(passing.workers, goes_on)
    Upstream(passing.workers, 503)
    job = passing.house.job()
    until_it_waits(passing, job)
    assert [row.counts_as for row in attempts_of(passing.house)].count(None) == 4, (
        "the last that counts, or one of many"
    )
    for _ in range(3 * HOUR // MINUTE):
        passing.work()
        passing.passes(MINUTE)
    (step,) = steps_of(passing.house)
    assert (passing.house.row(job).state, step.state) == (JobState.DONE, StepState.FAILED)
    assert step.error == "status 503, and its upstream did not come back in time"


def test_a_wait_in_vain_is_told_apart_from_a_refusal_in_every_run(passing: Passing) -> None:
    told: list[type[ActionFailed]] = []

    def goes_on(run: Run[Any], event: Any) -> None:
        for text in ("hello", "again"):
            try:
                run.do(Say(text=text), as_=run.user)
            except ActionFailed as failed:
                told.append(type(failed))

    passing.settings = StepSettings(upstream_wait=2 * HOUR)
    declare(passing.workers, goes_on)
    Upstream(passing.workers, 503)
    job = passing.house.job()
    for _ in range(5 * HOUR // MINUTE):
        passing.work()
        passing.passes(MINUTE)
    assert passing.house.row(job).state == JobState.DONE
    assert len(told) > 2, "the first is told anew, by what is stored, while the second waits"
    assert set(told) == {UpstreamGone}


def test_many_steps_at_an_upstream_that_is_gone_wait_for_it_once(passing: Passing) -> None:
    def each(run: Run[Any], event: Any) -> None:
        refusals = Postponed()
        for number in range(3):
            with refusals:
                run.do(Say(text=f"{number}"), as_=run.user)
        refusals.raise_first()

    passing.settings = StepSettings(upstream_wait=2 * HOUR)
    declare(passing.workers, each)
    Upstream(passing.workers, 503)
    job = passing.house.job()
    for _ in range(3 * HOUR // MINUTE):
        passing.work()
        passing.passes(MINUTE)
    assert passing.house.row(job).state == JobState.DEAD
    assert [step.state for step in steps_of(passing.house)] == [StepState.FAILED]
