"""How often a step is tried, from when on that is counted, and who is asked when it settled nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

import pytest
from sqlalchemy import select, update

from identity.audit import Act
from identity.keys.vault import Vault
from identity.model import Effect
from identity.policy.ledger import apply_policy
from pipeline.action import Facts, Judgement, Recovery, Response, UnreadableAnswer, Verdict
from pipeline.duties.reconcile import settle_attempts
from pipeline.execution.services import StepSettings
from pipeline.run import ActionFailed, Run, StepRefused
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.steps import stored as ledger_steps
from pipeline.steps.replay import replay_job
from pipeline.tables import attempts
from pipeline.workflow import USER
from tests.identity.providers import reply
from tests.ledger.acts import attempt_states, attempts_of, steps_of
from tests.ledger.house import Said, Say
from tests.ledger.resolutions import resolve
from tests.ledger.tries import Found, Named, answers, fallible, says, time_passes
from tests.ledger.workers import Workers, declare

HOUR = timedelta(hours=1)
DENIED = 'format = 1\n[[rule]]\nname = "quiet"\nwhen = { action = "github.*" }\ndeny = "quiet"\n'


class Keyed(Say):
    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.KEYED)


class Look(Say):
    facts: ClassVar[Facts] = replace(Say.facts, effect=Effect.READ)


def says_patiently(run: Run[Any], event: Any) -> None:
    run.do(Say(text="hello"), as_=run.user, patience=HOUR)


def looks_if_it_may(run: Run[Any], event: Any) -> None:
    with suppress(StepRefused):
        run.do(Look(text="hello"), as_=run.user)


def goes_on_whatever_happens(run: Run[Any], event: Any) -> None:
    with suppress(ActionFailed, StepRefused):
        run.do(Say(text="hello"), as_=run.user)


def test_a_write_that_is_never_answered_for_certain_is_tried_as_often_as_set_and_then_a_person_is_asked(
    workers: Workers,
) -> None:
    settings = StepSettings(attempts=3, backoff=timedelta(minutes=4))
    answers(workers, 500)
    for action in (Say, Keyed):
        declare(workers, partial(says, action))
        workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
        job, before = workers.house.job(), len(attempt_states(workers.house))
        for _ in range(4):
            workers.work(job, settings)
            row = workers.house.row(job)
            if row.state != JobState.QUEUED:
                break
            assert row.due_at - datetime.now(UTC) > timedelta(minutes=1), "the pauses grow"
            time_passes(workers)
        assert (row.state, row.wait) == (JobState.WAITING, Wait.UNKNOWN), action.facts.recovery
        assert len(attempt_states(workers.house)) - before == 3
        assert attempt_states(workers.house)[-1] == AttemptState.UNKNOWN
        assert row.reason.endswith("look at github, then say what became of it")


def test_a_write_that_can_be_searched_for_is_looked_for_after_its_last_try_and_nobody_is_asked(
    workers: Workers,
) -> None:
    for action, ends in ((Found, JobState.DONE), (Named, JobState.DEAD)):
        declare(workers, partial(says, action))
        workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
        job, before = workers.house.job(), len(attempt_states(workers.house))
        for status in (503, 500, 500):  # nothing was done, not known, and not reached
            answers(workers, status)
            workers.work(job, StepSettings(attempts=2))
            time_passes(workers)
        assert workers.house.row(job).state == ends
        found = AttemptState.ADOPTED if action is Found else AttemptState.NO_EFFECT
        assert attempt_states(workers.house)[before:] == [AttemptState.NO_EFFECT, found, AttemptState.NO_EFFECT]
    assert workers.house.row(job).reason.endswith("a search shows no effect of it, after 3 attempts")
    assert {step.state for step in steps_of(workers.house)} == {StepState.DONE, StepState.FAILED}


def test_a_write_that_a_host_without_the_vaults_key_could_not_send_is_sent_once_by_another(workers: Workers) -> None:
    """As in a restart host by host, after a new key began to write."""
    job, sound = workers.house.job(), workers.house.vault
    workers.house.vault = Vault({2: bytes(32)}, os.urandom)
    workers.work(job)
    workers.house.vault = sound
    row = workers.house.row(job)
    assert (row.state, workers.tokens) == (JobState.QUEUED, [])
    assert "needs vault key 1" in row.reason
    time_passes(workers)
    settle_attempts(workers.house.database)
    workers.work(job)
    assert (workers.house.row(job).state, len(workers.tokens)) == (JobState.DONE, 1)
    assert attempt_states(workers.house) == [AttemptState.NO_EFFECT, AttemptState.EFFECT]


def test_what_could_not_be_sent_uses_up_no_try(workers: Workers) -> None:
    """A host went on without the key for an hour; then the upstream is away for one try of two."""
    job, sound, settings = workers.house.job(), workers.house.vault, StepSettings(attempts=2)
    workers.house.vault = Vault({2: bytes(32)}, os.urandom)
    for _ in range(3):
        workers.work(job, settings)
        time_passes(workers)
    workers.house.vault = sound
    answers(workers, 503)
    workers.work(job, settings)
    row = workers.house.row(job)
    assert row.state == JobState.QUEUED
    assert row.due_at - datetime.now(UTC) < timedelta(seconds=30), "nor does it wait as after many"
    time_passes(workers)
    workers.work(job, settings)
    assert workers.house.row(job).state == JobState.DEAD
    assert steps_of(workers.house)[0].error.endswith("after 2 attempts")


def test_a_search_takes_no_call_its_turn(workers: Workers) -> None:
    declare(workers, partial(says, Named))
    workers.house.workflow = replace(workers.house.workflow, uses={Named: USER})
    job = workers.house.job()
    for status in (500, 200):
        answers(workers, status, id="9")
        workers.work(job, StepSettings(attempts=2))
        time_passes(workers)
    assert workers.house.row(job).state == JobState.DONE
    assert attempt_states(workers.house) == [AttemptState.NO_EFFECT, AttemptState.NO_EFFECT, AttemptState.EFFECT]


def test_patience_lasts_beyond_the_only_try_that_is_set(workers: Workers) -> None:
    answers(workers, 503)
    declare(workers, says_patiently)
    job, settings = workers.house.job(), StepSettings(attempts=1)
    for state in (JobState.QUEUED, JobState.DEAD):
        workers.work(job, settings)
        assert workers.house.row(job).state == state
        time_passes(workers, HOUR * 2)


def test_a_replay_begins_to_count_tries_and_patience_anew(workers: Workers) -> None:
    settings = StepSettings(attempts=2)
    answers(workers, 503)
    declare(workers, says_patiently)
    job = workers.house.job()

    def tries(passed: timedelta) -> str:
        workers.work(job, settings)
        time_passes(workers, passed)
        return str(workers.house.row(job).state)

    assert [tries(HOUR * 2) for _ in range(2)] == [JobState.QUEUED, JobState.DEAD]
    workers.house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    # Of the two tries the second is the last one set, and within the patience: both count from the replay.
    assert [tries(passed) for passed in (timedelta(), HOUR * 2, timedelta())] == [
        JobState.QUEUED,
        JobState.QUEUED,
        JobState.DEAD,
    ]
    assert workers.house.row(job).reason.endswith("status 503, after 3 attempts")
    assert len(set(workers.provider.bodies)) == 1, "it is recognised as the same"


def test_a_refusal_ends_the_job_whose_call_is_in_doubt_whatever_its_workflow_catches(workers: Workers) -> None:
    declare(workers, goes_on_whatever_happens)
    job, database = workers.house.job(), workers.house.database
    for status in (500, 503):  # in doubt; and then nothing was done, which says nothing of the first
        answers(workers, status)
        workers.work(job)
        time_passes(workers)
    apply = partial(apply_policy, over=None, act=Act(audit_id="aud-1", by="cli:test", now=datetime.now(UTC)))
    database.write(lambda c: apply(c, "acme", DENIED))
    workers.work(job)
    row, (step,) = workers.house.row(job), steps_of(workers.house)
    assert (row.state, step.state) == (JobState.DEAD, StepState.UNKNOWN)
    assert row.reason.startswith("StepRefused: ")
    assert row.reason.endswith("look at github, then say what became of it")
    assert attempt_states(workers.house) == [AttemptState.UNKNOWN, AttemptState.NO_EFFECT]


def test_a_read_that_a_crash_left_without_an_outcome_is_refused_like_one_that_was_never_sent(workers: Workers) -> None:
    declare(workers, looks_if_it_may)
    workers.house.workflow = replace(workers.house.workflow, uses={Look: USER})
    job, database = workers.house.job(), workers.house.database
    _crashes_while_it_reads(workers, job)
    apply = partial(apply_policy, over=None, act=Act(audit_id="aud-1", by="cli:test", now=datetime.now(UTC)))
    database.write(lambda c: apply(c, "acme", DENIED))
    workers.work(job)
    assert (workers.house.row(job).state, steps_of(workers.house)[0].state) == (JobState.DONE, StepState.REFUSED)


def test_a_read_that_fails_leaves_nobody_to_ask_about_its_calls_that_got_no_answer(workers: Workers) -> None:
    declare(workers, partial(says, Look))
    workers.house.workflow = replace(workers.house.workflow, uses={Look: USER})
    job = workers.house.job()
    _crashes_while_it_reads(workers, job)
    answers(workers, 400)
    workers.work(job)
    (step,) = steps_of(workers.house)
    assert (workers.house.row(job).state, step.state) == (JobState.DEAD, StepState.FAILED)
    assert attempt_states(workers.house) == [AttemptState.NO_EFFECT, AttemptState.NO_EFFECT]


def _crashes_while_it_reads(workers: Workers, job: str) -> None:
    database = workers.house.database
    answers(workers, 503)
    workers.work(job)
    time_passes(workers)
    database.write(lambda c: c.execute(update(attempts).values(state=AttemptState.OPEN)).rowcount)
    (left,) = database.read(lambda c: c.execute(select(attempts)).all())
    database.write(partial(ledger_steps.settle, attempt=left, now=datetime.now(UTC)))
    assert [step.state for step in steps_of(workers.house)] == [StepState.UNKNOWN]


@pytest.mark.parametrize("last", [400, 503], ids=["refused", "too-often"])
def test_a_failure_after_a_call_in_doubt_is_none_until_a_person_says_what_became_of_that(
    workers: Workers, last: int
) -> None:
    settings = StepSettings(attempts=2)
    declare(workers, goes_on_whatever_happens)
    job = workers.house.job()
    for status in (500, last):
        answers(workers, status)
        workers.work(job, settings)
        time_passes(workers)
    row, (step,) = workers.house.row(job), steps_of(workers.house)
    assert (row.state, row.wait, step.state) == (JobState.WAITING, Wait.UNKNOWN, StepState.UNKNOWN)
    lost = select(attempts.c.id).where(attempts.c.state == AttemptState.UNKNOWN)
    calls = workers.house.database.read(lambda c: c.execute(lost).scalars().all())
    resolve(workers.house, job, calls)
    workers.work(job, settings)
    (step,) = steps_of(workers.house)
    assert (workers.house.row(job).state, step.state) == (JobState.DONE, StepState.FAILED)


@pytest.fixture
def slow_clock(workers: Workers) -> Iterator[None]:
    """The database's clock is two hours behind the worker's."""
    engine = workers.house.database.engine

    def say(*statements: str) -> None:
        with engine.begin() as c:
            for statement in statements:
                c.exec_driver_sql(statement.replace("THIS", engine.url.database or ""))
        engine.dispose()  # for every session from now on

    say(
        "create function public.clock_timestamp() returns timestamptz language sql volatile "
        "as $$ select pg_catalog.clock_timestamp() - interval '2 hours' $$",
        'alter database "THIS" set search_path = public, pg_catalog',
    )
    yield
    say('alter database "THIS" reset search_path', "drop function public.clock_timestamp()")


@pytest.mark.as_owner
@pytest.mark.usefixtures("slow_clock")
@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_step_that_was_refused_is_known_to_the_upstream_by_one_key_whatever_the_workers_clock_says(
    workers: Workers,
) -> None:
    """SQLite has no clock but the worker's."""

    def says_and_looks(run: Run[Any], event: Any) -> None:
        run.do(Say(text="hello"), as_=run.user)
        run.do(Keyed(text="hello"), as_=run.user)

    declare(workers, says_and_looks)
    workers.house.workflow = replace(workers.house.workflow, uses={Say: USER, Keyed: USER})
    database, now = workers.house.database, datetime.now(UTC)
    (job,) = workers.house.accept(workers.house.delivery("delivery"), now=now - HOUR * 3).jobs
    denied = DENIED.replace("github.*", "github.Keyed")
    for version, (policy, said) in enumerate(((denied, [200]), ("format = 1\n", [500, 200]))):
        apply = partial(apply_policy, over=None, act=Act(audit_id=f"aud-{version}", by="cli:test", now=now))
        database.write(partial(apply, tenant="acme", text=policy))
        for status in said:
            answers(workers, status, id="7")
            time_passes(workers)
            workers.work(job)
        if policy == denied:
            database.write(partial(replay_job, job=job, by="ops", at=now))
    assert [step.state for step in steps_of(workers.house)] == [StepState.DONE, StepState.DONE]
    _, first, second = [json.loads(body)["marker"] for body in workers.provider.bodies]
    assert first == second


def test_a_step_that_was_refused_and_asks_for_something_else_is_known_by_one_key_though_its_token_was_refused(
    workers: Workers,
) -> None:
    def says_keyed(text: str, run: Run[Any], event: Any) -> None:
        run.do(Keyed(text=text), as_=run.user)

    declare(workers, partial(says_keyed, "hello"))
    workers.house.workflow = replace(workers.house.workflow, uses={Keyed: USER})
    database, now = workers.house.database, datetime.now(UTC)
    first, second = (Act(audit_id=id, by="cli:test", now=now) for id in ("aud-1", "aud-2"))
    database.write(lambda c: apply_policy(c, "acme", DENIED, first, over=None))
    job = workers.house.job()
    workers.work(job)
    database.write(lambda c: apply_policy(c, "acme", "format = 1\n", second, over=None))
    database.write(partial(replay_job, job=job, by="ops", at=now))
    declare(workers, partial(says_keyed, "good morning"))
    refuses = iter((True, False))
    workers.provider.call = lambda token: reply({}, 401 if next(refuses) else 500)
    workers.work(job)
    answers(workers, 200, id="7")
    time_passes(workers)
    workers.work(job)
    assert [step.state for step in steps_of(workers.house)] == [StepState.DONE]
    markers = [json.loads(body)["marker"] for body in workers.provider.bodies if b"marker" in body]
    assert (len(markers), len(set(markers))) == (3, 1)


class Puzzled(Say):
    """It can make nothing of any answer."""

    def judge(self, response: Response) -> Judgement:
        response.json()
        raise UnreadableAnswer("no words for that")


def test_an_answer_that_an_action_cannot_judge_is_unknown_and_spends_no_run(workers: Workers) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={Puzzled: USER})
    declare(workers, partial(says, Puzzled))
    job = workers.house.job()
    workers.work(job)
    assert (workers.house.row(job).state, workers.house.row(job).runs_spent) == (JobState.QUEUED, 0)
    assert attempt_states(workers.house) == [AttemptState.UNKNOWN]


class Quoting(Say):
    """It says why nothing was done in the words of whoever it calls."""

    def judge(self, response: Response) -> Judgement:
        return Judgement(verdict=Verdict.RETRY, reason=str(response.json()["why"]))


@pytest.mark.parametrize("why", ["not sent", "spends no attempt: it is away"])
def test_a_try_counts_in_whatever_words_its_upstream_says_that_nothing_was_done(workers: Workers, why: str) -> None:
    declare(workers, partial(says, Quoting))
    workers.house.workflow = replace(workers.house.workflow, uses={Quoting: USER})
    answers(workers, 200, why=why)
    job = workers.house.job()
    for state in (JobState.QUEUED, JobState.DEAD):
        workers.work(job, StepSettings(attempts=2))
        assert workers.house.row(job).state == state
        time_passes(workers)
    assert attempts_of(workers.house)[0].error == why


class Wordy(Say):
    def external_id(self, result: Said) -> str:
        return result.id


def test_what_an_upstream_calls_things_may_be_of_any_length(workers: Workers) -> None:
    workers.house.workflow = replace(workers.house.workflow, uses={Wordy: USER})
    declare(workers, partial(says, Wordy))
    workers.provider.call = lambda token: reply({"id": "7" * 300}, x_request_id="r" * 300)
    job = workers.house.job()
    workers.work(job)
    (step,) = steps_of(workers.house)
    assert (step.state, step.result, step.external_id) == (StepState.DONE, {"id": "7" * 300}, "7" * 200)
    (asked,) = workers.house.database.read(lambda c: c.execute(select(attempts.c.upstream_request_id)).scalars().all())
    assert asked == "r" * 200


@pytest.mark.parametrize(("fault", "left"), [("commit unseen", [AttemptState.NO_EFFECT]), ("commit lost", [])])
def test_nothing_is_sent_while_it_is_not_known_whether_the_intent_was_written(
    workers: Workers, fault: str, left: list[AttemptState]
) -> None:
    ledger, faults = fallible(workers), [fault]

    def says_with_a_fault_at_first(run: Run[Any], event: Any) -> None:
        ledger.fault = faults.pop() if faults else None
        run.do(Say(text="hello"), as_=run.user)

    declare(workers, says_with_a_fault_at_first)
    job = workers.house.job()
    workers.work(job)
    assert (workers.tokens, attempt_states(workers.house)) == ([], left)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    time_passes(workers)
    workers.work(job)
    assert (len(workers.tokens), workers.house.row(job).state) == (1, JobState.DONE)
    assert attempt_states(workers.house) == [*left, AttemptState.EFFECT]
