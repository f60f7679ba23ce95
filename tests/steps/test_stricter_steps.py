"""A step that is stricter about a revocation than its action: `uses` has that skipped, and here the job ends."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import Compensation, OnRevoke, as_use
from pipeline.run import Run, StepSkipped
from pipeline.states import JobState, StepState
from pipeline.workflow import SERVICE, SKIP, STOP, USER, compensate
from tests.ledger.acts import SIGNER, receipt_of, revoke, steps_of
from tests.ledger.house import Say, account_scope, say_it
from tests.ledger.revokers import quiet_revoker
from tests.ledger.workers import Workers

UNDONE = compensate(Say, lambda say, said: Say(text=f"{say.text} was undone"))


def say_what_can_be_said(run: Run[Any], event: Any) -> None:
    """Of two steps of one action the first is a courtesy; without the second the rest has no sense."""
    with suppress(StepSkipped):
        run.do(Say(text="by the way"), as_=run.user)
    with suppress(Exception):
        run.do(Say(text=event.text), as_=run.user, on_revoke=STOP)
    run.do(Say(text="it was said"), as_=run.service)


def say_twice(then: OnRevoke | None, run: Run[Any], event: Any) -> None:
    for text in ("once", "twice"):
        run.do(Say(text=text), as_=run.user, on_revoke=then)


def declared(then: OnRevoke | Compensation, function: Any) -> Workflow:
    use = as_use((USER | SERVICE).on_revoke(then))
    compensations: dict[type[Any], Compensation] = {Say: use.compensation} if use.compensation else {}
    return replace(say_it, function=function, on_revoke={Say: use.on_revoke}, compensations=compensations)


@pytest.mark.parametrize("told_first", [True, False], ids=["receipt, then step", "step, then receipt"])
def test_of_two_steps_of_one_action_one_is_skipped_and_the_other_ends_the_job(
    workers: Workers, told_first: bool
) -> None:
    house = workers.house
    house.workflow = declared(SKIP, say_what_can_be_said)
    job, revoker = house.job(), quiet_revoker(house.database, SIGNER, Registry([house.workflow]))
    made = revoke(house, account_scope())
    if told_first:  # jobs are found by what `uses` says, so it is left alone until it comes to that step
        assert revoker.advance(made)
        assert house.row(job).state == JobState.QUEUED
    workers.work(job)
    assert (house.row(job).state, house.row(job).revocation_id) == (JobState.CANCELLED, made)
    assert [step.state for step in steps_of(house)] == [StepState.SKIPPED, StepState.REFUSED]
    assert workers.tokens == []
    assert revoker.advance(made)
    receipt = receipt_of(house, made)
    assert (receipt["skipping_jobs"], receipt["cancelled_jobs"]) == ((1, []) if told_first else (0, [job]))


@pytest.mark.parametrize("then", [STOP, UNDONE], ids=["stop", "compensate"])
def test_a_step_that_is_looser_than_its_action_is_refused_by_its_name(
    workers: Workers, then: OnRevoke | Compensation
) -> None:
    workers.house.workflow = declared(then, partial(say_twice, SKIP))
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, workers.tokens) == (JobState.DEAD, [])
    assert row.reason == (
        "BadInput: step 1, github.Say, may only be stricter about a revocation than `uses`, which says stop: "
        "on_revoke=STOP, or nothing"
    )


@pytest.mark.parametrize("then", [STOP, SKIP])
def test_what_a_step_says_about_revocations_is_not_compared_with_what_it_said(workers: Workers, then: OnRevoke) -> None:
    workers.house.workflow = declared(SKIP, partial(say_twice, None))
    job = workers.house.job()
    workers.work(job, stopping=lambda: bool(workers.tokens))
    assert (workers.house.row(job).state, len(workers.tokens)) == (JobState.QUEUED, 1)
    workers.house.workflow = declared(SKIP, partial(say_twice, then))
    workers.work(job)
    assert (workers.house.row(job).state, len(workers.tokens)) == (JobState.DONE, 2)
