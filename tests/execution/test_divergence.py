"""Code that no longer goes with what its job has: a step that it leaves out, a result that it cannot read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

import pytest
from sqlalchemy import update

from identity.audit import Act
from identity.policy.ledger import apply_policy
from pipeline.action import Result
from pipeline.jobs import claims
from pipeline.jobs.moves import move_job
from pipeline.run import ActionFailed, Run, StepRefused
from pipeline.states import JobState, StepState
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs as jobs_table
from pipeline.workflow import USER
from tests.identity.providers import reply
from tests.ledger.acts import open_, steps_of
from tests.ledger.house import House, Said, Say, intent_of
from tests.ledger.tries import answers, time_passes
from tests.ledger.workers import HOUR, TOKEN, Workers, declare, say_and_sleep, wake

DENIED = 'format = 1\n[[rule]]\nname = "none"\ndeny = "not now"\n'


def says_before(run: Run[Any], event: Any) -> None:
    run.do(Say(text="before"), as_=run.user)


def says_it_otherwise_if_it_must(run: Run[Any], event: Any) -> None:
    says_before(run, event)
    try:
        run.do(Say(text="hello"), as_=run.user)
    except ActionFailed:
        run.do(Say(text="otherwise"), as_=run.user)
        run.sleep(HOUR)


def says_two_things(run: Run[Any], event: Any) -> None:
    says_before(run, event)
    run.do(Say(text="hello"), as_=run.user)


def says_three_things(run: Run[Any], event: Any) -> None:
    says_two_things(run, event)
    run.do(Say(text="more"), as_=run.user)


def sleeps_if_it_must(run: Run[Any], event: Any) -> None:
    try:
        run.do(Say(text="hello"), as_=run.user)
    except ActionFailed:
        run.sleep(HOUR)


def says_it_and_sleeps(run: Run[Any], event: Any) -> None:
    with suppress(ActionFailed, StepRefused):
        run.do(Say(text="hello"), as_=run.user)
    run.sleep(HOUR)


def does_nothing(run: Run[Any], event: Any) -> None: ...


class Told(Said):
    channel: str


class SayWhere(Say):
    """`Say`, whose result has another field by now."""

    result: ClassVar[type[Result]] = Told


SayWhere.__name__ = Say.__name__


def says_once(action: type[Say], run: Run[Any], event: Any) -> None:
    with suppress(Exception):
        run.do(action(text="hello"), as_=run.user, once="hello")
    run.sleep(HOUR)


def replay_it(house: House, job: str) -> None:
    house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))


def test_a_function_that_leaves_a_step_out_ends_its_job_by_the_steps_name(workers: Workers) -> None:
    declare(workers, say_and_sleep)
    job = workers.house.job()
    workers.work(job)
    before = steps_of(workers.house)
    declare(workers, says_before)
    wake(workers.house)
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.DEAD, 0)
    assert row.reason.startswith("Diverged: step 2 was run.sleep as policy, and now the workflow ends without it")
    assert (workers.tokens, steps_of(workers.house)) == ([TOKEN], before)


def test_a_job_that_is_to_stop_when_a_step_is_left_out_is_cancelled(workers: Workers) -> None:
    house = workers.house

    def is_stopped(run: Run[Any], event: Any) -> None:
        house.database.write(partial(move_job, job=run.job, to=JobState.STOPPING, source=JobState.RUNNING))

    declare(workers, say_and_sleep)
    job = house.job()
    workers.work(job)
    declare(workers, is_stopped)
    wake(house)
    workers.work(job)
    assert house.row(job).state == JobState.CANCELLED


def test_what_failed_before_a_replay_may_be_left_out_after_it(workers: Workers) -> None:
    house = workers.house
    declare(workers, says_it_otherwise_if_it_must)
    workers.provider.call = lambda token: reply({"message": "no"}, 422) if workers.tokens else workers._call(token)
    job = house.job()
    workers.work(job)
    assert [step.state for step in steps_of(house)] == [StepState.DONE, StepState.FAILED, StepState.FAILED]
    replay_it(house, job)
    workers.provider.call = workers._call
    workers.work(job)
    assert house.row(job).state == JobState.DONE
    assert [step.state for step in steps_of(house)] == [StepState.DONE, StepState.DONE, StepState.OPEN]


def test_what_was_done_before_a_replay_may_not_be_left_out_after_it(workers: Workers) -> None:
    house = workers.house
    declare(workers, says_it_otherwise_if_it_must)
    refusing = iter([False, True])
    workers.provider.call = lambda token: (
        reply({"message": "no"}, 422) if next(refusing, False) else workers._call(token)
    )
    job = house.job()
    workers.work(job)
    assert [step.state for step in steps_of(house)][1:] == [StepState.FAILED, StepState.DONE, StepState.OPEN]
    house.database.write(partial(claims.bury, job=_awake(workers, job), reason="its host burned"))
    replay_it(house, job)
    workers.work(job)
    assert house.row(job).reason.startswith("Diverged: step 3 was github.Say as user, and now the workflow ends")


def test_what_may_have_been_done_before_a_replay_may_not_be_left_out_after_it(workers: Workers) -> None:
    house = workers.house
    declare(workers, says_before)
    job = house.job()
    claimed = house.claim(job)
    open_(house, intent_of(house, claimed, position=2))
    house.database.write(partial(claims.bury, job=claimed, reason="its host burned"))
    replay_it(house, job)
    workers.work(job)
    assert house.row(job).reason.startswith("Diverged: step 2 was github.Say as user, and now the workflow ends")


def test_a_job_of_a_replayed_delivery_may_leave_out_no_sleep(workers: Workers) -> None:
    declare(workers, say_and_sleep)
    job = workers.house.job()
    workers.house.database.write(lambda c: c.execute(update(jobs_table).values(replayed_by=["ops"])).rowcount)
    workers.work(job)
    declare(workers, says_before)
    wake(workers.house)
    workers.work(job)
    assert workers.house.row(job).reason.startswith("Diverged: step 2 was run.sleep as policy, and now the workflow")


def test_a_sleep_that_a_step_was_done_before_may_not_be_left_out_after_a_replay(workers: Workers) -> None:
    house = workers.house
    declare(workers, say_and_sleep)
    job = house.job()
    workers.work(job)
    house.database.write(partial(claims.bury, job=_awake(workers, job), reason="its host burned"))
    replay_it(house, job)
    declare(workers, says_before)
    workers.work(job)
    assert house.row(job).reason.startswith("Diverged: step 2 was run.sleep as policy, and now the workflow ends")


def test_what_was_tried_since_the_replay_may_not_be_left_out(workers: Workers) -> None:
    house = workers.house
    declare(workers, says_three_things)
    workers.provider.call = lambda token: reply({"message": "no"}, 422) if workers.tokens else workers._call(token)
    job = house.job()
    workers.work(job)
    replay_it(house, job)
    workers.provider.call = lambda token: reply({}, 429) if len(workers.tokens) > 1 else workers._call(token)
    workers.work(job)
    assert [step.state for step in steps_of(house)] == [StepState.DONE, StepState.DONE, StepState.OPEN]
    declare(workers, says_two_things)
    time_passes(workers)
    workers.work(job)
    assert house.row(job).reason.startswith("Diverged: step 3 was github.Say as user, and now the workflow ends")


def test_a_sleep_after_what_failed_before_a_replay_may_be_left_out_after_it(workers: Workers) -> None:
    house = workers.house
    declare(workers, sleeps_if_it_must)
    answers(workers, 422)
    job = house.job()
    workers.work(job)
    assert [step.state for step in steps_of(house)] == [StepState.FAILED, StepState.OPEN]
    house.database.write(partial(claims.bury, job=_awake(workers, job), reason="its host burned"))
    replay_it(house, job)
    workers.provider.call = workers._call
    workers.work(job)
    assert house.row(job).state == JobState.DONE
    assert [step.state for step in steps_of(house)] == [StepState.DONE, StepState.OPEN]


@pytest.mark.parametrize("adopted", [False, True], ids=["its own", "another job's"])
def test_a_result_that_the_code_no_longer_reads_ends_the_job_by_the_steps_name(workers: Workers, adopted: bool) -> None:
    house = workers.house
    declare(workers, partial(says_once, Say))
    job = house.job()
    workers.work(job)
    whose = ""
    if adopted:
        job, whose = house.job(), f" which is job {job}'s,"
    house.workflow = replace(house.workflow, function=partial(says_once, SayWhere), uses={SayWhere: USER})
    wake(house)
    workers.work(job)
    row = house.row(job)
    assert (row.state, row.runs_spent) == (JobState.DEAD, 0)
    assert row.reason.startswith(f"Diverged: the result of step 1, github.Say,{whose} does not fit Told:")


def test_a_result_that_its_own_class_does_not_read_back_is_no_divergence(workers: Workers) -> None:
    house = workers.house
    house.workflow = replace(house.workflow, function=partial(says_once, SayWhere), uses={SayWhere: USER})
    job = house.job()
    workers.work(job)
    row, (step,) = house.row(job), steps_of(house)
    assert (row.state, row.runs_spent, step.state) == (JobState.DEAD, 0, StepState.DONE)
    assert row.reason.startswith("BadInput: step 1 was done, and what github.Say read of it is not read back as Told:")


@pytest.mark.parametrize(
    ("state", "helps"), [(StepState.DONE, False), (StepState.FAILED, True), (StepState.REFUSED, True)]
)
def test_a_replay_is_advised_where_it_lets_the_step_be_left_out(
    workers: Workers, state: StepState, helps: bool
) -> None:
    house = workers.house
    declare(workers, says_it_and_sleeps)
    answers(workers, 422 if state is StepState.FAILED else 201, id="7")
    if state is StepState.REFUSED:
        apply = partial(apply_policy, over=None, act=Act(audit_id="aud-1", by="cli:test", now=datetime.now(UTC)))
        house.database.write(lambda c: apply(c, "acme", DENIED))
    job = house.job()
    workers.work(job)
    assert [step.state for step in steps_of(house)] == [state, StepState.OPEN]
    declare(workers, does_nothing)
    wake(house)
    workers.work(job)
    row = house.row(job)
    assert row.reason.startswith("Diverged: step 1 was github.Say as user, and now the workflow ends without it")
    assert ("replay" in row.reason) is helps
    replay_it(house, job)
    workers.work(job)
    assert (house.row(job).state == JobState.DONE) is helps


def _awake(workers: Workers, job: str) -> claims.ClaimedJob:
    wake(workers.house)
    return workers.house.claim(job)
