"""Whatever a function catches, its run ends as the step did that ended it, and no further step is taken."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest
from sqlalchemy import update

from identity.model import AccountState
from identity.tables import accounts
from pipeline.action import Facts, Recovery
from pipeline.execution.services import StepSettings
from pipeline.jobs.moves import move_job
from pipeline.run import LONGEST_ONCE, ActionFailed, Run
from pipeline.states import JobState, Wait
from pipeline.workflow import USER
from tests.ledger.acts import steps_of
from tests.ledger.house import Say
from tests.ledger.tries import answers, fallible
from tests.ledger.workers import HOUR, TOKEN, Workers, declare, say_and_sleep, wake
from tests.ledgers import MOSTLY_SQLITE


class Elsewhere(Say):
    """At a provider that the tenant is not connected to."""

    facts: ClassVar[Facts] = replace(Say.facts, provider="linear")


class Asked(Say):
    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.ASK)


# How a function hides it.


def catches_exceptions(step: Callable[[], Any]) -> None:
    with suppress(Exception):
        step()


def catches_everything(step: Callable[[], Any]) -> None:
    with suppress(BaseException):
        step()


def returns_over_it(step: Callable[[], Any]) -> None:
    try:
        step()
    finally:
        return  # noqa: B012 - what is tried


def raises_over_it(step: Callable[[], Any]) -> None:
    try:
        step()
    except BaseException as hidden:
        raise ActionFailed("another thing") from hidden


WAYS = [catches_exceptions, catches_everything, returns_over_it, raises_over_it]


# How a run ends: what the job's upstream, ledger or past is, and the step that meets it.


def is_not_connected(workers: Workers) -> type[Say]:
    return Elsewhere


def has_no_ledger(workers: Workers) -> type[Say]:
    ledger = fallible(workers)

    class Unwritten(Say):
        def confined_to(self) -> str | None:
            """Asked last before the step opens."""
            ledger.fault = "no turn"
            return None

    return Unwritten


def has_no_confirmation(workers: Workers) -> type[Say]:
    ledger = fallible(workers)

    class Unseen(Say):
        def confined_to(self) -> str | None:
            ledger.fault = "commit unseen"
            return None

    return Unseen


def is_in_doubt(workers: Workers) -> type[Say]:
    answers(workers, 500)
    return Asked


def has_a_bug(workers: Workers) -> type[Say]:
    class Buggy(Say):
        def confined_to(self) -> str | None:
            raise RuntimeError("whoever wrote it")

    return Buggy


def lacks_a_consent(workers: Workers) -> type[Say]:
    workers.house.database.write(
        lambda c: c.execute(update(accounts).values(state=AccountState.NEEDS_RECONNECT)).rowcount
    )
    return Say


def is_told_to_stop(workers: Workers) -> type[Say]:
    house = workers.house

    class Stopped(Say):
        def confined_to(self) -> str | None:
            (job,) = house.states()
            house.database.write(partial(move_job, job=job, to=JobState.STOPPING, source=JobState.RUNNING))
            return None

    return Stopped


Ending = tuple[JobState, Wait | None, int, str]  # state, wait, runs spent, and how the reason begins
ENDINGS: dict[Callable[[Workers], type[Say]], Ending] = {
    is_not_connected: (JobState.QUEUED, None, 0, "tenant acme has no provider connection to linear"),
    has_no_ledger: (JobState.QUEUED, None, 0, "no turn could be had"),
    has_no_confirmation: (JobState.QUEUED, None, 0, "the opening's commit was not confirmed"),
    is_in_doubt: (JobState.WAITING, Wait.UNKNOWN, 0, "github.Asked was sent and its outcome is not known"),
    has_a_bug: (JobState.QUEUED, None, 1, "RuntimeError"),
    lacks_a_consent: (JobState.WAITING, Wait.CONSENT, 0, "github.Say needs the consent of acme.ada"),
    is_told_to_stop: (JobState.CANCELLED, None, 0, ""),
}


@MOSTLY_SQLITE
@pytest.mark.parametrize("hides", WAYS)
@pytest.mark.parametrize("ends", ENDINGS)
def test_no_function_hides_how_its_run_ended(
    workers: Workers, hides: Callable[[Callable[[], Any]], None], ends: Callable[[Workers], type[Say]]
) -> None:
    action = ends(workers)

    def says(run: Run[Any], event: Any) -> None:
        hides(lambda: run.do(action(text="hello"), as_=run.user))
        workers.provider.call = workers._call
        hides(lambda: run.do(Say(text="as if it had been said"), as_=run.user))

    workers.house.workflow = replace(workers.house.workflow, function=says, uses={action: USER, Say: USER})
    job = workers.house.job()
    workers.work(job, StepSettings(attempts=1))
    row, (state, wait, runs, reason) = workers.house.row(job), ENDINGS[ends]
    assert (row.state, row.wait, row.runs_spent) == (state, wait, runs)
    assert (row.reason or "").startswith(reason)
    assert all(step.parameters == {"text": "hello"} for step in steps_of(workers.house))


@pytest.mark.parametrize("hides", WAYS)
def test_no_function_hides_that_it_sleeps(workers: Workers, hides: Callable[[Callable[[], Any]], None]) -> None:
    def sleeps(run: Run[Any], event: Any) -> None:
        hides(lambda: run.sleep(HOUR))
        hides(lambda: run.do(Say(text="as if it had slept"), as_=run.user))

    declare(workers, sleeps)
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.wait, row.runs_spent) == (JobState.WAITING, Wait.TIME, 0)
    assert ([step.action for step in steps_of(workers.house)], workers.tokens) == (["run.sleep"], [])


@pytest.mark.parametrize("hides", WAYS)
def test_no_step_is_taken_after_one_that_diverged(workers: Workers, hides: Callable[[Callable[[], Any]], None]) -> None:
    def says_another_thing(run: Run[Any], event: Any) -> None:
        hides(lambda: run.do(Say(text="another"), as_=run.user))
        hides(lambda: run.sleep(HOUR))
        hides(lambda: run.do(Say(text="more"), as_=run.user))

    declare(workers, say_and_sleep)
    job = workers.house.job()
    workers.work(job)
    before = steps_of(workers.house)
    declare(workers, says_another_thing)
    wake(workers.house)
    workers.work(job)
    row = workers.house.row(job)
    assert row.state == JobState.DEAD
    assert row.reason.startswith("Diverged: step 1 was github.Say as user")
    assert (workers.tokens, steps_of(workers.house)) == ([TOKEN], before)


def test_what_cannot_be_asked_for_ends_the_job_whatever_its_function_catches(workers: Workers) -> None:
    def says_once(run: Run[Any], event: Any) -> None:
        for key in ("k" * (LONGEST_ONCE + 1), "k"):
            with suppress(Exception):
                run.do(Say(text="hello"), as_=run.user, once=key)

    declare(workers, says_once)
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, workers.tokens) == (JobState.DEAD, [])
    assert row.reason.startswith("BadInput: a once key has 200 characters at most")
