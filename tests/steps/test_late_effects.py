"""An effect that becomes known after its step has ended: it is kept, whatever the step was by then."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from identity.errors import BadInput
from pipeline.desk.unanswered import asked_about, unanswered_calls
from pipeline.jobs import claims, waits
from pipeline.jobs.intents import Adopted, Ended, Intent, Opened
from pipeline.ledger.clock import ledger_now
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.steps import failures, refusals
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs as jobs_table
from pipeline.tables import steps
from pipeline.views import tenant_views
from pipeline.workflow import SERVICE
from tests.ledger.acts import attempt_states, close, done, open_, revoke, settle, step_state
from tests.ledger.house import House, Say, account_scope, intent_of, say_it
from tests.ledger.resolutions import resolve


class Other(Say):
    """Another action."""


def _refused_after_a_doubt(house: House, **more: Any) -> Intent:
    """A step whose first call got no answer and whose second was turned down; its job is dead."""
    first = _in_doubt_and_failed(house, **more)
    house.database.write(partial(claims.bury, job=first.job, reason="400"))
    return first


def _in_doubt_and_failed(house: House, **more: Any) -> Intent:
    first = intent_of(house, house.claim(house.job()), **more)
    open_(house, first)
    close(house, first, AttemptState.UNKNOWN, StepState.UNKNOWN)
    second = intent_of(house, first.job, step=first.step, again=True, repeats_unknown=True, **more)
    assert isinstance(open_(house, second), Opened)
    close(house, second, AttemptState.NO_EFFECT, StepState.FAILED, error="400")
    return first


def _step(house: House, step: str) -> Any:
    return house.database.read(lambda c: c.execute(select(steps).where(steps.c.id == step)).one())


def test_an_operator_who_says_that_a_failed_step_had_its_effect_is_heard(house: House) -> None:
    first = _refused_after_a_doubt(house)
    resolve(house, first.job.id, [first.attempt], {"id": "9"})
    row = _step(house, first.step)
    assert (row.state, row.result, row.error) == (StepState.DONE, {"id": "9"}, None)
    house.database.write(partial(replay_job, job=first.job.id, by="ops", at=datetime.now(UTC)))
    assert step_state(house, first.step) == StepState.DONE  # the replay returns it, and makes no other call


def test_an_operator_who_says_that_a_failed_step_had_no_effect_leaves_it_failed(house: House) -> None:
    first = _refused_after_a_doubt(house)
    resolve(house, first.job.id, [first.attempt])
    assert step_state(house, first.step) == StepState.FAILED


def test_an_operator_is_heard_too_of_a_job_that_is_done(house: House) -> None:
    first = _in_doubt_and_failed(house)
    house.database.write(partial(claims.finish, job=first.job))
    resolve(house, first.job.id, [first.attempt], {"id": "9"})
    assert (house.row(first.job.id).state, step_state(house, first.step)) == (JobState.DONE, StepState.DONE)


def test_an_operator_is_not_heard_of_a_job_that_still_runs(house: House) -> None:
    first = _in_doubt_and_failed(house)
    before = attempt_states(house)
    for result in ({"id": "9"}, None):
        with pytest.raises(BadInput, match="does not wait for anyone's word"):
            resolve(house, first.job.id, [first.attempt], result)
    assert attempt_states(house) == before == [AttemptState.UNKNOWN, AttemptState.NO_EFFECT]


def test_an_operator_is_told_where_the_workflow_has_no_such_action_any_more(house: House) -> None:
    first = _refused_after_a_doubt(house)
    house.workflow = replace(say_it, uses={Other: SERVICE})
    with pytest.raises(BadInput, match=r"say_it does not use github\.Say any more"):
        resolve(house, first.job.id, [first.attempt], {"id": "9"})
    resolve(house, first.job.id, [first.attempt])
    assert step_state(house, first.step) == StepState.FAILED


def test_a_step_whose_call_is_on_the_wire_is_refused_only_once_that_has_ended(house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    refuse = partial(refusals.refuse, reason="no")
    outcome = house.database.write(partial(refuse, intent=replace(asked, again=True)))
    assert isinstance(outcome, Ended)
    assert (outcome.moved, step_state(house, asked.step)) == (JobState.QUEUED, StepState.OPEN)
    close(house, asked, AttemptState.NO_EFFECT, StepState.OPEN)
    due = update(jobs_table).where(jobs_table.c.id == asked.job.id).values(due_at=jobs_table.c.created_at)
    house.database.write(lambda c: c.execute(due).rowcount)
    again = replace(asked, again=True, job=house.claim(asked.job.id))
    assert house.database.write(partial(refuse, intent=again)) is None
    assert step_state(house, asked.step) == StepState.REFUSED


def test_who_waits_for_a_failed_step_gets_the_result_that_an_operator_found(house: House) -> None:
    first = _refused_after_a_doubt(house, once="pull#1")
    waiter = intent_of(house, house.claim(house.job()), once="pull#1")
    assert isinstance(open_(house, waiter), Ended)
    resolve(house, first.job.id, [first.attempt], {"id": "9"})
    again = intent_of(house, house.claim(waiter.job.id), once="pull#1")
    outcome = open_(house, again)
    assert isinstance(outcome, Adopted)
    assert outcome.result == {"id": "9"}


def test_a_call_whose_worker_died_leaves_its_step_unknown_so_that_no_revocation_refuses_it(house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    settle(house, asked)
    assert step_state(house, asked.step) == StepState.UNKNOWN
    revoke(house, account_scope())
    again = intent_of(house, asked.job, step=asked.step, again=True, repeats_unknown=True)
    assert isinstance(open_(house, again), Ended)
    assert (house.row(asked.job.id).state, step_state(house, asked.step)) == (JobState.CANCELLED, StepState.UNKNOWN)


def test_an_effect_that_comes_after_a_refusal_is_kept(house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    revoke(house, account_scope())
    assert isinstance(
        open_(house, intent_of(house, asked.job, step=asked.step, again=True, repeats_unknown=True)), Ended
    )
    assert step_state(house, asked.step) == StepState.REFUSED
    done(house, asked, {"id": "7"})
    row = _step(house, asked.step)
    assert (row.state, row.result, row.error) == (StepState.DONE, {"id": "7"}, None)


@pytest.mark.parametrize("other", [None, AttemptState.UNKNOWN])
def test_an_answer_without_effect_opens_the_step_of_a_call_given_up_unless_another_is_in_doubt(
    house: House, other: AttemptState | None
) -> None:
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    settle(house, asked)
    if other is not None:
        second = intent_of(house, asked.job, step=asked.step, again=True, repeats_unknown=True)
        open_(house, second)
        close(house, second, other, StepState.UNKNOWN)
    close(house, asked, AttemptState.NO_EFFECT, StepState.OPEN)
    assert step_state(house, asked.step) == (StepState.OPEN if other is None else StepState.UNKNOWN)


def test_a_run_that_meets_a_call_still_in_doubt_looks_again_only_when_that_may_be_settled(house: House) -> None:
    first = intent_of(house, house.claim(house.job()))
    open_(house, first)
    close(house, first, AttemptState.UNKNOWN, StepState.UNKNOWN)
    blocked = intent_of(house, first.job, step=first.step, again=True)
    assert isinstance(open_(house, blocked), Ended)
    row = house.row(first.job.id)
    now = house.database.read(ledger_now)
    assert row.state == JobState.QUEUED
    assert row.due_at - now > timedelta(seconds=5)


@pytest.mark.parametrize("ended", [StepState.FAILED, StepState.REFUSED, StepState.SKIPPED])
def test_an_effect_whose_result_was_not_kept_ends_the_job_that_is_replayed(house: House, ended: StepState) -> None:
    """As an older ledger has it: an answer that came after its step had ended left no result behind."""
    first = intent_of(house, house.claim(house.job()), once="pull#1")
    open_(house, first)
    done(house, first)
    lost = update(steps).where(steps.c.id == first.step).values(state=ended, result=None)
    house.database.write(lambda c: c.execute(lost).rowcount)
    house.database.write(partial(claims.bury, job=first.job, reason="400"))
    house.database.write(partial(replay_job, job=first.job.id, by="ops", at=datetime.now(UTC)))
    again = intent_of(house, house.claim(first.job.id), step=first.step, again=True, repeats_unknown=True)
    assert isinstance(open_(house, again), Ended)
    row = house.row(first.job.id)
    assert (row.state, row.reason) == (
        JobState.DEAD,
        "an earlier attempt had its effect, and its result was not kept",
    )


def _asks_beside_a_read(house: House) -> tuple[Intent, Intent]:
    """A read that was refused while nothing was known of its call, and a call that the job waits for a word about."""
    read = intent_of(house, house.claim(house.job()), reads=True)
    open_(house, read)
    settle(house, read)
    refuse = partial(refusals.refuse, intent=replace(read, attempt=house.ids("att"), again=True), reason="no")
    assert house.database.write(refuse) is None
    said = intent_of(house, read.job, position=2)
    open_(house, said)
    close(house, said, AttemptState.UNKNOWN, StepState.UNKNOWN)
    house.database.write(partial(claims.park, job=said.job, wait=Wait.UNKNOWN, **_FOR_DAYS))
    return read, said


def test_a_read_that_fails_without_another_call_leaves_nobody_to_be_asked_about_an_earlier_one(house: House) -> None:
    read = intent_of(house, house.claim(house.job()), reads=True)
    open_(house, read)
    settle(house, read)
    fail = partial(failures.fail, intent=replace(read, attempt=house.ids("att"), again=True), reason="it is away")
    assert house.database.write(fail) is None
    assert (step_state(house, read.step), attempt_states(house)) == (StepState.FAILED, [AttemptState.NO_EFFECT])
    assert unanswered_calls(_steps(house, read.job.id)) == []


def test_a_word_is_about_one_step_and_lets_its_job_go_on_whatever_else_is_on_record(house: House) -> None:
    read, said = _asks_beside_a_read(house)
    assert len(unanswered_calls(_steps(house, said.job.id))) == 2
    (asked,) = asked_about(_steps(house, said.job.id))
    assert asked.attempt["id"] == said.attempt, "its job waits for that"
    resolve(house, said.job.id, [said.attempt], {"id": "9"})
    assert (house.row(said.job.id).state, step_state(house, said.step)) == (JobState.QUEUED, StepState.DONE)
    assert step_state(house, read.step) == StepState.REFUSED
    (left,) = asked_about(_steps(house, said.job.id))
    assert left.attempt["id"] == read.attempt


def test_a_word_about_a_read_leaves_its_job_waiting_for_the_other_one(house: House) -> None:
    read, said = _asks_beside_a_read(house)
    resolve(house, said.job.id, [read.attempt])
    assert house.row(said.job.id).state == JobState.WAITING
    assert attempt_states(house) == [AttemptState.NO_EFFECT, AttemptState.UNKNOWN]


def test_a_job_that_asks_goes_on_by_a_late_answer_whatever_is_on_record_of_a_read(house: House) -> None:
    _, said = _asks_beside_a_read(house)
    job = said.job
    look = partial(waits.end_wait, job=job.id, fence=job.fence, wait=Wait.UNKNOWN, expired=False, reason=None)
    assert house.database.write(look) is None
    done(house, said)
    assert house.database.write(look) == JobState.QUEUED


def test_a_word_about_calls_of_two_steps_is_refused_and_told_which_are_of_which(house: House) -> None:
    first = intent_of(house, house.claim(house.job()))
    second = intent_of(house, first.job, position=2)
    for lost in (first, second):
        open_(house, lost)
        close(house, lost, AttemptState.UNKNOWN, StepState.UNKNOWN)
    house.database.write(partial(claims.bury, job=first.job, reason="400"))
    by_step = f"step 1, github.Say: {first.attempt}; step 2, github.Say: {second.attempt}"
    for named in ([first.attempt, second.attempt], []):
        with pytest.raises(BadInput, match=re.escape(by_step)):
            resolve(house, first.job.id, named, {"id": "9"})
    assert attempt_states(house) == [AttemptState.UNKNOWN, AttemptState.UNKNOWN]
    resolve(house, first.job.id, [second.attempt], {"id": "9"})
    assert attempt_states(house) == [AttemptState.UNKNOWN, AttemptState.EFFECT]


_FOR_DAYS: dict[str, Any] = {
    "waits_for": None,
    "due_in": timedelta(days=1),
    "expires_in": timedelta(days=14),
    "reason": "nobody knows",
}


def _steps(house: House, job: str) -> list[Any]:
    return list(house.database.read(lambda c: tenant_views.steps_of(c, job)))
