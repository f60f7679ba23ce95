"""The replay of a job that has only read: it takes the mended configuration, and reads anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel
from sqlalchemy import update

from identity.audit import Act
from identity.model import Effect
from pipeline.action import Facts
from pipeline.authoring.registry import Registry
from pipeline.desk.jobs import replay_one
from pipeline.run import Run
from pipeline.states import AttemptState, JobState, StepState
from pipeline.tables import attempts, jobs, workflow_settings
from pipeline.workflow import USER
from tests.identity.providers import reply
from tests.ledger.acts import steps_of
from tests.ledger.house import Say
from tests.ledger.workers import SAID, Workers


class Look(Say):
    """A read that asks as the write does."""

    facts: ClassVar[Facts] = replace(Say.facts, effect=Effect.READ)


class Words(BaseModel):
    text: str = "wrong"


LOOK, SAY = Look.action_name(), Say.action_name()
NO_SUCH_WORDS = reply({"message": "no such words"}, 422)


def looks_if_misled(run: Run[Words], event: Any) -> None:
    if run.config.text == "wrong":
        run.do(Look(text="first"), as_=run.user)
    run.do(Say(text=run.config.text), as_=run.user)
    run.do(Look(text="afterwards"), as_=run.user)


def has_read(workers: Workers) -> str:
    """A job that died at its first write; the configuration was mended since."""
    house = workers.house
    uses: dict[Any, Any] = {**house.workflow.uses, Look: USER}
    house.workflow = replace(house.workflow, function=looks_if_misled, config=Words, uses=uses)
    said = iter([SAID, NO_SUCH_WORDS])
    workers.provider.call = lambda token: next(said)
    job = house.job()
    workers.work(job)
    assert [(step.action, step.state) for step in steps_of(house)] == [(LOOK, StepState.DONE), (SAY, StepState.FAILED)]
    mended = update(workflow_settings).values(config={"text": "right"})
    house.database.write(lambda c: c.execute(mended).rowcount)
    workers.provider.call = workers._call
    return job


def replay(workers: Workers, job: str) -> None:
    house = workers.house
    act = Act(audit_id=house.ids("aud"), by="cli:test", now=datetime.now(UTC))
    house.database.write(partial(replay_one, id=job, act=act, workflows=Registry([house.workflow])))


def answered_as(workers: Workers, state: AttemptState) -> None:
    read = update(attempts).where(attempts.c.state == AttemptState.EFFECT).values(state=state)
    assert workers.house.database.write(lambda c: c.execute(read).rowcount) == 1


@pytest.mark.parametrize("state", [AttemptState.EFFECT, AttemptState.ADOPTED])
def test_a_write_in_the_place_of_a_read_is_made(workers: Workers, state: AttemptState) -> None:
    """The answer of the read there does not pass for the write's effect, and the other read is made anew."""
    job = has_read(workers)
    answered_as(workers, state)
    replay(workers, job)
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    assert [(step.action, step.state, step.parameters["text"]) for step in steps_of(workers.house)] == [
        (SAY, StepState.DONE, "right"),
        (LOOK, StepState.DONE, "afterwards"),
    ]
    assert len(workers.provider.bodies) == 4


def test_it_may_be_replayed_again_before_it_has_done_anything(workers: Workers) -> None:
    job = has_read(workers)
    dead = update(jobs).where(jobs.c.id == job).values(state=JobState.DEAD)
    for _ in range(2):
        replay(workers, job)
        workers.house.database.write(lambda c: c.execute(dead).rowcount)
    replay(workers, job)
    workers.work(job)
    assert [step.action for step in steps_of(workers.house)] == [SAY, LOOK]


def test_a_read_without_an_answer_binds_its_job(workers: Workers) -> None:
    job = has_read(workers)
    answered_as(workers, AttemptState.UNKNOWN)
    replay(workers, job)
    workers.work(job)
    assert [(step.action, step.parameters["text"]) for step in steps_of(workers.house)][1:] == [
        (SAY, "wrong"),
        (LOOK, "afterwards"),
    ]


@pytest.mark.parametrize("state", [AttemptState.NO_EFFECT, AttemptState.UNKNOWN])
def test_a_replay_is_advised_for_a_read_that_the_function_left_out_where_nothing_binds_its_job(
    workers: Workers, state: AttemptState
) -> None:
    house, job = workers.house, has_read(workers)
    house.workflow = replace(house.workflow, function=lambda run, event: None)
    written = update(attempts).where(attempts.c.state == AttemptState.NO_EFFECT).values(state=state)
    house.database.write(lambda c: c.execute(written).rowcount)
    again = update(jobs).where(jobs.c.id == job).values(state=JobState.QUEUED)
    house.database.write(lambda c: c.execute(again).rowcount)
    workers.work(job)
    row, helps = house.row(job), state == AttemptState.NO_EFFECT
    assert row.reason.startswith(f"Diverged: step 1 was {LOOK} as user, and now the workflow ends without it")
    assert ("replay this one" in row.reason) is helps
    replay(workers, job)
    workers.work(job)
    assert (house.row(job).state == JobState.DONE) is helps


def test_a_write_that_was_done_binds_its_job_and_what_it_read(workers: Workers) -> None:
    job = has_read(workers)
    done = update(attempts).where(attempts.c.state == AttemptState.NO_EFFECT).values(state=AttemptState.EFFECT)
    workers.house.database.write(lambda c: c.execute(done).rowcount)
    replay(workers, job)
    assert [(step.action, step.state) for step in steps_of(workers.house)] == [
        (LOOK, StepState.DONE),
        (SAY, StepState.OPEN),
    ]
