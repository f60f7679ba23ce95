"""A function that is run again: what it did stands, and it must ask for the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Connection, update

from pipeline.duties import reconcile
from pipeline.execution.services import StepSettings
from pipeline.execution.worker import WorkerSettings
from pipeline.jobs.intents import Ended
from pipeline.jobs.moves import move_job
from pipeline.run import LONGEST_SLEEP, OnceUsed, Run, StepRefused
from pipeline.states import JobState, StepState, Wait
from pipeline.steps import stored as ledger_steps
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs, steps, workflow_settings
from tests.identity.providers import reply
from tests.ledger.acts import lapse, steps_of
from tests.ledger.house import House, Opened, Say
from tests.ledger.workers import HOUR, TOKEN, Workers, declare, say_and_sleep, wake


def sleep_passes(house: House) -> None:
    """The hour is over, by the steps' dates and the jobs'."""
    earlier = [(step.id, step.opened_at - HOUR) for step in steps_of(house)]

    def move(c: Connection) -> None:
        for step, opened in earlier:
            c.execute(update(steps).where(steps.c.id == step).values(opened_at=opened))

    house.database.write(move)
    wake(house)


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
    workers: Workers, function: Callable[[Run[Any], Any], None], asked: str, different: str
) -> None:
    declare(workers, say_and_sleep)
    job = workers.house.job()
    workers.work(job)
    before = steps_of(workers.house)
    declare(workers, function)
    wake(workers.house)
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.DEAD, 0)
    assert row.reason.startswith(f"Diverged: step 1 was github.Say as user, and now the workflow asks for {asked} ")
    assert f"(different: {different})" in row.reason
    assert workers.tokens == [TOKEN]
    assert steps_of(workers.house) == before


def test_a_function_that_sleeps_for_another_time_has_diverged(workers: Workers) -> None:
    def says_and_sleeps_longer(run: Run[Any], event: Any) -> None:
        run.do(Say(text="before"), as_=run.user)
        run.sleep(HOUR * 2)

    declare(workers, say_and_sleep)
    job = workers.house.job()
    workers.work(job)
    declare(workers, says_and_sleeps_longer)
    wake(workers.house)
    workers.work(job)
    row = workers.house.row(job)
    assert row.state == JobState.DEAD
    assert row.reason.startswith("Diverged: step 2 was run.sleep as policy")


# sleep


def test_a_job_sleeps_in_the_ledger_and_goes_on_once_its_time_has_come(workers: Workers) -> None:
    declare(workers, say_and_sleep)
    job = workers.house.job()
    workers.work(job)
    asleep = workers.house.row(job)
    assert (asleep.state, asleep.wait, asleep.reason) == (JobState.WAITING, Wait.TIME, "the workflow sleeps")
    _, sleep = steps_of(workers.house)
    assert (sleep.action, sleep.state, sleep.parameters) == ("run.sleep", StepState.OPEN, {"seconds": 3600})
    assert timedelta() <= asleep.due_at - (sleep.opened_at + HOUR) < timedelta(minutes=1)
    reconcile.wake_due(workers.house.database)
    workers.work(job)
    assert workers.house.row(job).state == JobState.WAITING
    sleep_passes(workers.house)
    assert workers.house.row(job).state == JobState.QUEUED
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.DONE, 0)
    assert [(step.action, step.state) for step in steps_of(workers.house)] == [
        ("github.Say", StepState.DONE),
        ("run.sleep", StepState.DONE),
        ("github.Say", StepState.DONE),
    ]
    assert workers.tokens == [TOKEN, TOKEN]


def test_a_job_that_is_woken_too_early_sleeps_until_the_same_moment(workers: Workers) -> None:
    declare(workers, say_and_sleep)
    job = workers.house.job()
    workers.work(job)
    due, before = workers.house.row(job).due_at, steps_of(workers.house)
    wake(workers.house)
    workers.work(job)
    row = workers.house.row(job)
    assert row.state == JobState.WAITING
    assert abs(row.due_at - due) < timedelta(minutes=1)
    assert steps_of(workers.house) == before


def test_a_sleep_that_is_over_is_not_slept_again(workers: Workers) -> None:
    def sleeps_twice(run: Run[Any], event: Any) -> None:
        run.sleep(HOUR)
        run.sleep(HOUR)

    declare(workers, sleeps_twice)
    job = workers.house.job()
    workers.work(job)
    sleep_passes(workers.house)
    workers.work(job)
    assert workers.house.row(job).state == JobState.WAITING
    assert [(step.occurrence, step.state) for step in steps_of(workers.house)] == [
        (1, StepState.DONE),
        (2, StepState.OPEN),
    ]
    first = steps_of(workers.house)[0]
    sleep_passes(workers.house)
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    assert steps_of(workers.house)[0].closed_at == first.closed_at


def test_a_job_that_was_told_to_stop_does_not_sleep(workers: Workers) -> None:
    def is_told_to_stop(run: Run[Any], event: Any) -> None:
        stop = partial(move_job, job=run.job, to=JobState.STOPPING, source=JobState.RUNNING)
        workers.house.database.write(stop)
        run.sleep(HOUR)

    declare(workers, is_told_to_stop)
    job = workers.house.job()
    workers.work(job)
    assert workers.house.row(job).state == JobState.CANCELLED


def test_a_worker_that_lost_its_job_leaves_the_sleep_to_the_one_that_has_it(house: House) -> None:
    job = house.job()
    late = house.claim(job)
    lapse(house, job)
    reconcile.reclaim(house.database, WorkerSettings(backoff=timedelta()))
    sleep = partial(ledger_steps.sleep, position=1, occurrence=1, request_hash="hash", duration=HOUR)
    asleep = house.database.write(partial(sleep, job=house.claim(job), step="theirs"))
    assert asleep == Ended(reason="the workflow sleeps", moved=JobState.WAITING)
    assert house.database.write(partial(sleep, job=late, step="late")) == Ended(reason="another worker has the job")
    assert [step.id for step in steps_of(house)] == ["theirs"]


def test_a_sleep_that_a_worker_began_that_had_lost_its_job_is_the_sleep_of_the_one_that_has_it(house: House) -> None:
    job = house.job()
    late = house.claim(job)
    lapse(house, job)
    reconcile.reclaim(house.database, WorkerSettings(backoff=timedelta()))
    rightful = house.claim(job)
    sleep = partial(ledger_steps.sleep, position=1, occurrence=1, request_hash="hash", duration=HOUR)
    assert house.database.write(partial(sleep, job=late, step="late")) == Ended(reason="another worker has the job")
    asleep = house.database.write(partial(sleep, job=rightful, step="theirs"))
    assert asleep == Ended(reason="the workflow sleeps", moved=JobState.WAITING)
    assert ([step.id for step in steps_of(house)], house.row(job).state) == (["late"], JobState.WAITING)


@pytest.mark.parametrize("duration", [LONGEST_SLEEP + timedelta(seconds=1), timedelta.max])
def test_a_sleep_that_no_date_can_end_ends_the_job_at_once_and_says_so(workers: Workers, duration: timedelta) -> None:
    declare(workers, lambda run, event: run.sleep(duration))
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, steps_of(workers.house)) == (JobState.DEAD, [])
    assert "run.sleep sleeps for 3650 days at most, and was asked for" in row.reason


def test_a_worker_backs_off_for_a_day_at_most_however_often_a_run_failed(workers: Workers) -> None:
    def fails(run: Run[Any], event: Any) -> None:
        raise RuntimeError("a bug")

    declare(workers, fails)
    job = workers.house.job()
    often = update(jobs).where(jobs.c.id == job).values(runs_spent=900)
    workers.house.database.write(lambda c: c.execute(often).rowcount)
    workers.worker(jobs=WorkerSettings(runs=1000)).handle(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 901)
    assert timedelta(hours=11) < row.due_at - datetime.now(UTC) <= timedelta(days=1)


# its configuration


class Words(BaseModel):
    text: str = "wrong"


def test_a_job_runs_under_the_configuration_it_was_accepted_with(workers: Workers) -> None:
    def says_what_is_configured(run: Run[Words], event: Any) -> None:
        run.do(Say(text=run.config.text), as_=run.user)

    house = workers.house
    house.workflow = replace(house.workflow, function=says_what_is_configured, config=Words)

    def configure(text: str) -> None:
        change = update(workflow_settings).values(config={"text": text})
        house.database.write(lambda c: c.execute(change).rowcount)

    configure("as it was")
    early = house.job()
    configure("as it is")
    late = house.job()
    for job in (early, late):
        workers.work(job)
        assert house.row(job).state == JobState.DONE
    said = {step.job_id: step.parameters for step in steps_of(house)}
    assert said == {early: {"text": "as it was"}, late: {"text": "as it is"}}


class Renamed(Opened):
    reviewer: str


class Counted(BaseModel):
    count: int


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"event": Renamed}, "the stored event no longer fits workflow say_it: reviewer"),
        ({"config": Counted}, "the stored configuration no longer fits workflow say_it: count"),
    ],
    ids=["event", "configuration"],
)
def test_what_is_stored_and_no_longer_fits_is_told_by_its_fields(
    workers: Workers, change: dict[str, Any], says: str
) -> None:
    house = workers.house
    job = house.job()
    house.workflow = replace(house.workflow, **change)
    workers.work(job)
    row = house.row(job)
    assert (row.state, row.reason) == (JobState.DEAD, f"BadInput: {says}")


def test_a_step_that_failed_asks_for_something_else_once_its_configuration_is_mended(workers: Workers) -> None:
    def says_what_is_configured(run: Run[Words], event: Any) -> None:
        run.do(Say(text=run.config.text), as_=run.user, once="said")

    house = workers.house
    house.workflow = replace(house.workflow, function=says_what_is_configured, config=Words)
    workers.provider.call = lambda token: reply({"message": "no such words"}, 422)
    job = house.job()
    workers.work(job)
    (failed,) = steps_of(house)
    assert (house.row(job).state, failed.state) == (JobState.DEAD, StepState.FAILED)
    mended = update(workflow_settings).values(config={"text": "right"})
    house.database.write(lambda c: c.execute(mended).rowcount)
    house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    workers.provider.call = workers._call
    workers.work(job)
    (done,) = steps_of(house)
    assert (house.row(job).state, done.state, done.parameters) == (JobState.DONE, StepState.DONE, {"text": "right"})
    assert done.request_hash == Say(text="right").request_hash()
    first, second = (json.loads(body)["marker"] for body in workers.provider.bodies)
    assert first != second  # nor is it taken for a repetition of the other thing
    later = house.job()
    workers.work(later)  # the key is known by what was done
    assert (house.row(later).state, len(workers.tokens)) == (JobState.DONE, 1)


def test_a_function_sleeps_where_it_failed_once_its_configuration_is_mended(workers: Workers) -> None:
    def sleeps_if_configured(run: Run[Words], event: Any) -> None:
        if run.config.text == "right":
            run.sleep(HOUR)
        run.do(Say(text=run.config.text), as_=run.user, once="said")

    house = workers.house
    house.workflow = replace(house.workflow, function=sleeps_if_configured, config=Words)
    workers.provider.call = lambda token: reply({"message": "no such words"}, 422)
    job = house.job()
    workers.work(job)
    sleep_passes(house)  # long ago: it is not what the sleep is counted from
    mended = update(workflow_settings).values(config={"text": "right"})
    house.database.write(lambda c: c.execute(mended).rowcount)
    house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    workers.provider.call = workers._call
    for _ in range(2):  # its second run compares with what the first one wrote
        workers.work(job)
        (sleep,) = steps_of(house)
        assert (house.row(job).wait, sleep.action, sleep.state) == (Wait.TIME, "run.sleep", StepState.OPEN)
        assert (sleep.named, sleep.principal_id, sleep.once_key) == ("policy", None, None)
        assert sleep.parameters == {"seconds": 3600}
        wake(house)
    sleep_passes(house)
    workers.work(job)
    assert (house.row(job).state, [step.state for step in steps_of(house)]) == (JobState.DONE, [StepState.DONE] * 2)


# its once key


def test_a_once_key_that_is_too_long_ends_the_job_at_once_and_says_so(workers: Workers) -> None:
    def says_once(key: str, run: Run[Any], event: Any) -> None:
        run.do(Say(text="hello"), as_=run.user, once=key)

    house = workers.house
    for length, state in ((200, JobState.DONE), (201, JobState.DEAD)):
        declare(workers, partial(says_once, "k" * length))
        job = house.job()
        workers.work(job)
        assert house.row(job).state == state, length
    assert len(workers.tokens) == 1
    assert "a once key has 200 characters at most, and that of github.Say has 201" in house.row(job).reason


def test_a_step_whose_once_key_was_used_for_something_else_says_so_to_every_run(workers: Workers) -> None:
    told: list[type[Exception]] = []

    def says_and_sleeps(run: Run[Any], event: Any) -> None:
        try:
            run.do(Say(text=event.text), as_=run.user, once="said")
        except StepRefused as refused:
            told.append(type(refused))
            run.sleep(HOUR)

    house = workers.house
    declare(workers, says_and_sleeps)
    first, second = house.job(text="one"), house.job(text="another")
    workers.work(first)
    workers.work(second)
    sleep_passes(house)
    workers.work(second)
    assert (house.row(second).state, told) == (JobState.DONE, [OnceUsed, OnceUsed])
    assert workers.tokens == [TOKEN]


def test_a_step_whose_once_key_came_free_is_its_own_after_a_replay(workers: Workers) -> None:
    def says_it_once(run: Run[Any], event: Any) -> None:
        run.do(Say(text=event.text), as_=run.user, once="said")

    house = workers.house
    declare(workers, says_it_once)
    first, second = house.job(text="one"), house.job(text="another")
    workers.provider.call = lambda token: reply({"message": "later"}, 503)
    workers.work(first)
    workers.work(second)
    assert (house.row(second).state, "the once key 'said' was used" in house.row(second).reason) == (
        JobState.DEAD,
        True,
    )
    assert [one.adopted_from for one in steps_of(house)] == [None, None], "nothing is done by it yet"
    house.database.write(lambda c: c.execute(update(jobs).values(due_at=jobs.c.created_at)).rowcount)
    workers.provider.call = lambda token: reply({"message": "no"}, 422)
    workers.work(first)
    house.database.write(partial(replay_job, job=second, by="ops", at=datetime.now(UTC)))
    workers.provider.call = workers._call
    workers.work(second)
    step = next(one for one in steps_of(house) if one.job_id == second)
    assert (step.state, step.adopted_from) == (StepState.DONE, None)


# its workflow


def says(text: str) -> Callable[[Run[Any], Any], None]:
    def say(run: Run[Any], event: Any) -> None:
        run.do(Say(text=text), as_=run.user, once="said")

    return say


def markers(workers: Workers) -> list[str]:
    """By what the upstream knows each request, as it heard them."""
    return [json.loads(body)["marker"] for body in workers.provider.bodies]


def test_a_step_that_failed_asks_for_something_else_once_its_workflow_is_mended(workers: Workers) -> None:
    house = workers.house
    declare(workers, says("wrong"))
    workers.provider.call = lambda token: reply({"message": "no such words"}, 422)
    job = house.job()
    workers.work(job)
    assert house.row(job).state == JobState.DEAD
    declare(workers, says("right"))
    house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    workers.provider.call = lambda token: reply({"message": "later"}, 503)
    workers.work(job)
    workers.provider.call = workers._call
    house.database.write(lambda c: c.execute(update(jobs).values(due_at=jobs.c.created_at)).rowcount)
    workers.work(job)
    (done,) = steps_of(house)
    assert (house.row(job).state, done.state, done.parameters) == (JobState.DONE, StepState.DONE, {"text": "right"})
    first, second, third = markers(workers)
    assert first != second == third
    later = house.job()
    workers.work(later)
    assert (house.row(later).state, len(workers.tokens)) == (JobState.DONE, 1)


def test_what_a_replay_asks_for_again_is_known_to_the_upstream_as_before(workers: Workers) -> None:
    """Should the first answer have been wrong, an upstream that honours keys still does it once."""
    house = workers.house
    declare(workers, says("hello"))
    workers.provider.call = lambda token: reply({"message": "later"}, 503)
    job = house.job()
    for _ in range(2):
        workers.work(job, StepSettings(attempts=1))
        assert house.row(job).state == JobState.DEAD
        house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    workers.provider.call = workers._call
    workers.work(job)
    assert house.row(job).state == JobState.DONE
    assert len(set(markers(workers))) == 1 < len(markers(workers))


def test_a_job_that_did_something_does_it_as_its_workflow_was(workers: Workers) -> None:
    def says_twice(first: str, run: Run[Any], event: Any) -> None:
        run.do(Say(text=first), as_=run.user)
        run.do(Say(text="more"), as_=run.user)

    house = workers.house
    declare(workers, partial(says_twice, "hello"))
    workers.provider.call = lambda token: reply({"message": "no"}, 422) if workers.tokens else workers._call(token)
    job = house.job()
    workers.work(job)
    assert [step.state for step in steps_of(house)] == [StepState.DONE, StepState.FAILED]
    declare(workers, partial(says_twice, "another"))
    house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    workers.work(job)
    assert house.row(job).reason.startswith("Diverged: step 1 was github.Say as user")


def test_a_job_whose_workflow_is_gone_waits_until_it_is_back(workers: Workers) -> None:
    declare(workers, say_and_sleep)
    job, declared = workers.house.job(), workers.house.workflow
    workers.house.workflow = replace(declared, name="renamed")
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.due_at > datetime.now(UTC) + WorkerSettings().misconfigured_delay / 2
    assert row.reason.startswith("no workflow is named 'say_it': known are renamed.")
    assert workers.tokens == []
    workers.house.workflow = declared
    its_time = update(jobs).where(jobs.c.id == job).values(due_at=jobs.c.created_at)
    workers.house.database.write(lambda c: c.execute(its_time).rowcount)
    workers.work(job)
    assert workers.house.row(job).wait == Wait.TIME
    assert workers.tokens == [TOKEN]
