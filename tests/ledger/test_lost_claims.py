"""A worker that has lost its job decides nothing of it, and an opening goes by what its step has come to."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import func, select

from pipeline.approvals.tables import approvals
from pipeline.duties.reconcile import reclaim
from pipeline.execution.worker import WorkerSettings
from pipeline.jobs.intents import Ended, Intent, Opened, PolicyMoved
from pipeline.jobs.moves import move_job
from pipeline.states import AttemptState, JobState, StepState
from pipeline.steps.refusals import refuse
from tests.ledger.acts import attempt_states, close, lapse, open_, step_state, steps_of
from tests.ledger.approval_case import ApprovalCase
from tests.ledger.house import House, intent_of


def _refuse(house: House, asked: Intent) -> Ended | PolicyMoved | None:
    return house.database.write(partial(refuse, intent=asked, reason="no"))


def _lose(house: House, job: str) -> None:
    lapse(house, job)
    reclaim(house.database, WorkerSettings())


def _tell_to_stop(house: House, job: str) -> None:
    house.database.write(partial(move_job, job=job, to=JobState.STOPPING))


def test_a_worker_that_lost_its_job_refuses_nothing(house: House) -> None:
    job = house.job()
    asked = intent_of(house, house.claim(job))
    open_(house, asked)
    close(house, asked, AttemptState.NO_EFFECT, StepState.OPEN)
    _lose(house, job)
    assert _refuse(house, asked) == Ended(reason="another worker has the job")
    assert step_state(house, asked.step) == StepState.OPEN
    assert house.row(job).state == JobState.QUEUED


def test_a_job_that_was_told_to_stop_is_cancelled_where_its_step_would_be_refused(house: House) -> None:
    job = house.job()
    asked = intent_of(house, house.claim(job))
    _tell_to_stop(house, job)
    assert _refuse(house, asked) == Ended(reason="stopped", moved=JobState.CANCELLED)
    assert (steps_of(house), house.row(job).state) == ([], JobState.CANCELLED)


@pytest.mark.parametrize("lost", [True, False])
def test_nobody_is_asked_for_an_approval_by_a_worker_that_lost_its_job_or_is_to_stop(house: House, lost: bool) -> None:
    case = ApprovalCase(house)
    (_lose if lost else _tell_to_stop)(house, case.job.id)
    asked = case.ask()
    assert asked == (
        Ended(reason="another worker has the job") if lost else Ended(reason="stopped", moved=JobState.CANCELLED)
    )
    assert house.database.read(lambda c: c.execute(select(func.count()).select_from(approvals)).scalar_one()) == 0


def test_a_step_that_was_refused_is_not_opened(house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    assert _refuse(house, asked) is None
    _gives_way(house, asked, StepState.REFUSED)


def test_a_step_that_an_earlier_call_failed_late_is_not_opened_again(house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    assert isinstance(open_(house, asked), Opened)
    close(house, asked, AttemptState.NO_EFFECT, StepState.FAILED)
    _gives_way(house, intent_of(house, asked.job, step=asked.step, again=True), StepState.FAILED)


def _gives_way(house: House, asked: Intent, ended: StepState) -> None:
    before = attempt_states(house)
    reason = "its step has ended before it opened"
    assert open_(house, asked) == Ended(reason=reason, moved=JobState.QUEUED)
    assert (step_state(house, asked.step), attempt_states(house)) == (ended, before)
    assert house.row(asked.job.id).reason == reason
