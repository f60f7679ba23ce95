"""Searches for an effect that are over before their finding is written: what that still says, and of which calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, text, update

from identity.sql.store import CommitUnknown
from pipeline.action import Call, Request, Response
from pipeline.db.database import Database
from pipeline.desk.unanswered import unanswered_calls
from pipeline.duties.reconcile import reclaim, settle_attempts
from pipeline.execution.services import StepSettings
from pipeline.execution.worker import WorkerSettings
from pipeline.jobs import claims
from pipeline.jobs.intents import Ended, Intent, Opened
from pipeline.ledger.revision import newest
from pipeline.migrations import upgrade
from pipeline.revocation import declaration
from pipeline.states import AttemptState, JobState, Purpose, StepState, Wait
from pipeline.steps.openings import open_attempt
from pipeline.tables import attempts
from pipeline.views import tenant_views
from pipeline.workflow import USER
from tests.identity.providers import reply
from tests.ledger.acts import (
    attempt_states,
    attempts_of,
    audit_kinds,
    close,
    lapse,
    open_,
    revoke,
    settle,
    step_state,
    steps_of,
    until_awaited,
)
from tests.ledger.house import House, Said, Say, account_scope, intent_of
from tests.ledger.resolutions import resolve
from tests.ledger.tries import Sought, answers, fallible, says, time_passes
from tests.ledger.workers import Workers, declare
from tests.properties.held import Ledger

T = TypeVar("T")
TWICE = StepSettings(attempts=2)


class Lost(Sought):
    """What answers its calls answers its searches too, of which none finds anything."""

    def probe(self, call: Call) -> Request:
        return Request(method="POST", path="/search")


class There(Lost):
    """A search finds it."""

    def found(self, response: Response, call: Call) -> Said | None:
        return Said(id="7")


def _probed(house: House) -> tuple[Intent, Intent]:
    """A step whose call got no answer, and a search for its effect whose worker died."""
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    look = intent_of(house, asked.job, step=asked.step, purpose=Purpose.PROBE, again=True, repeats_unknown=True)
    assert isinstance(open_(house, look), Opened)
    settle(house, look)
    return asked, look


def _finds(house: House, look: Intent) -> bool:
    return close(house, look, AttemptState.NO_EFFECT, StepState.DONE, result={"id": "9"}, resolves=AttemptState.ADOPTED)


def test_a_search_whose_worker_died_is_over_and_its_step_is_as_much_in_doubt_as_before(house: House) -> None:
    asked, look = _probed(house)
    assert attempt_states(house) == [AttemptState.UNKNOWN, AttemptState.NO_EFFECT]
    assert step_state(house, asked.step) == StepState.UNKNOWN
    made = revoke(house, account_scope())  # it is no call in flight any more
    row = house.database.read(partial(declaration.load, revocation=made))
    found = house.database.read(partial(declaration.in_flight, row=row))
    assert [attempt.id for attempt in found] == [asked.attempt] != [look.attempt]


def test_an_effect_that_a_search_finds_late_counts(house: House) -> None:
    _, look = _probed(house)
    _finds(house, look)
    assert attempt_states(house) == [AttemptState.ADOPTED, AttemptState.NO_EFFECT]
    (step,) = steps_of(house)
    assert (step.state, step.result) == (StepState.DONE, {"id": "9"})


def test_a_search_that_found_nothing_and_says_so_late_rules_nothing_out(house: House) -> None:
    """By then the call may have been made again, and be in doubt itself."""
    asked, look = _probed(house)
    close(house, look, AttemptState.NO_EFFECT, StepState.OPEN, resolves=AttemptState.NO_EFFECT)
    assert attempt_states(house) == [AttemptState.UNKNOWN, AttemptState.NO_EFFECT]
    assert step_state(house, asked.step) == StepState.UNKNOWN


@pytest.mark.as_owner
def test_a_search_that_an_older_version_gave_up_is_over_after_the_upgrade(house: House) -> None:
    asked, look = _probed(house)
    given_up = update(attempts).where(attempts.c.id == look.attempt).values(state=AttemptState.UNKNOWN, closed=None)

    def as_it_was(c: Connection) -> None:
        c.execute(given_up)
        c.execute(text("update alembic_version set version_num = '0035'"))

    house.database.write(as_it_was)
    upgrade(house.database, "0036")
    # The rest it has: what was set back was the number alone, and other tests are given this ledger.
    house.database.write(
        lambda c: c.execute(text("update alembic_version set version_num = :newest"), {"newest": newest()}).rowcount
    )
    assert attempt_states(house) == [AttemptState.UNKNOWN, AttemptState.NO_EFFECT]
    after = revoke(house, account_scope())
    row = house.database.read(partial(declaration.load, revocation=after))
    found = house.database.read(partial(declaration.in_flight, row=row))
    assert [attempt.id for attempt in found] == [asked.attempt]


def test_an_operator_is_asked_about_calls_and_no_searches(house: House) -> None:
    asked, _ = _probed(house)
    days = timedelta(days=1)
    wait = partial(claims.park, wait=Wait.UNKNOWN, waits_for=None, due_in=days, expires_in=days, reason="nobody knows")
    house.database.write(partial(wait, job=asked.job))
    (call,) = unanswered_calls(house.database.read(lambda c: tenant_views.steps_of(c, asked.job.id)))
    assert call.attempt["id"] == asked.attempt
    resolve(house, asked.job.id, [asked.attempt], {"id": "9"})
    assert house.row(asked.job.id).state == JobState.QUEUED


@pytest.mark.parametrize(
    ("later", "twice"),
    [(None, False), (AttemptState.NO_EFFECT, False), (AttemptState.UNKNOWN, True), (AttemptState.EFFECT, True)],
)
def test_a_late_finding_is_of_the_calls_before_the_search_and_a_later_one_may_have_done_it_again(
    house: House, later: AttemptState | None, twice: bool
) -> None:
    """A person who looked at a replica that lags said that the first was not there."""
    asked, look = _probed(house)
    close(house, asked, AttemptState.NO_EFFECT, StepState.OPEN)
    states = [AttemptState.NO_EFFECT, AttemptState.NO_EFFECT]
    if later is not None:
        second = intent_of(house, asked.job, step=asked.step, again=True)
        assert isinstance(open_(house, second), Opened)
        ends = {AttemptState.UNKNOWN: StepState.UNKNOWN, AttemptState.EFFECT: StepState.DONE}
        close(house, second, later, ends.get(later, StepState.OPEN), result={"id": "8"})
        states.append(later)
    assert _finds(house, look) is twice
    assert attempt_states(house) == states, "what became of the second nobody knows by the search"
    assert step_state(house, asked.step) == StepState.DONE
    assert audit_kinds(house)[-1] == ("attempt.duplicate_effect" if twice else "attempt.late")


def test_an_answer_in_the_words_of_housekeeping_is_another_one(house: House) -> None:
    _, look = _probed(house)
    said = "no answer was recorded before the deadline"
    close(house, look, AttemptState.NO_EFFECT, StepState.UNKNOWN, error=said)
    assert audit_kinds(house)[-1] == "attempt.late"


def test_a_closing_that_is_written_again_after_a_person_settled_its_call_is_known_as_written(house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    close(house, asked, AttemptState.NO_EFFECT, StepState.OPEN)
    before = audit_kinds(house)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    assert audit_kinds(house) == before


def test_nothing_is_sent_for_an_effect_that_a_search_found_after_it_was_ruled_out(house: House) -> None:
    asked, look = _probed(house)
    close(house, asked, AttemptState.NO_EFFECT, StepState.OPEN)
    _finds(house, look)
    again = intent_of(house, asked.job, step=asked.step, again=True)
    assert isinstance(open_(house, again), Ended)
    row = house.row(asked.job.id)
    assert (row.state, row.reason) == (JobState.QUEUED, "an earlier attempt was answered late")


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_call_that_opens_while_a_search_finds_its_effect_is_seen_or_sees_it(house: House) -> None:
    """It is too late to hold the call back, so it is said. SQLite has one writer anyway."""
    asked, look = _probed(house)
    close(house, asked, AttemptState.NO_EFFECT, StepState.OPEN)
    again = intent_of(house, asked.job, step=asked.step, again=True)
    finding = threading.Thread(target=_finds, args=(house, look))
    opened = until_awaited(house.database, partial(open_attempt, intent=again), by=finding)
    assert isinstance(opened, Opened)
    assert audit_kinds(house)[-1] == "attempt.duplicate_effect"


def _searches(workers: Workers, action: type[Say]) -> str:
    """A job whose write got no answer at its last try."""
    declare(workers, partial(says, action))
    workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
    job = workers.house.job()
    for status in (503, 500):
        answers(workers, status)
        workers.work(job, TWICE)
        time_passes(workers)
    return job


def _settled_before_its_answer(workers: Workers) -> None:
    """The next call's worker is paused, and housekeeping gives the call up."""

    def paused(token: str) -> Any:
        time_passes(workers)
        settle_attempts(workers.house.database)
        return reply({})

    workers.provider.call = paused


def _state(workers: Workers, job: str) -> tuple[str, str]:
    (step,) = steps_of(workers.house)
    return workers.house.row(job).state, step.state


@pytest.mark.parametrize("tries", [2, 3])
def test_a_run_whose_search_was_given_up_before_its_answer_believes_no_more_of_it_than_the_ledger(
    workers: Workers, tries: int
) -> None:
    failed = partial(
        REGISTRY.get_sample_value,
        "aswhom_steps_total",
        {"action": "github.Lost", "pattern": "delegated", "outcome": "failed"},
    )
    job, before = _searches(workers, Lost), failed() or 0
    _settled_before_its_answer(workers)
    workers.work(job, StepSettings(attempts=tries))
    assert _state(workers, job) == (JobState.QUEUED, StepState.UNKNOWN)
    assert workers.house.row(job).reason.startswith("search for github.Lost: ")
    assert (failed() or 0) == before
    time_passes(workers)
    answers(workers, 200)
    workers.work(job, TWICE)
    assert _state(workers, job) == (JobState.DEAD, StepState.FAILED)
    assert workers.house.row(job).reason.endswith("a search shows no effect of it, after 4 attempts")


def test_a_run_whose_search_was_given_up_goes_on_by_the_effect_that_it_found(workers: Workers) -> None:
    job = _searches(workers, There)
    _settled_before_its_answer(workers)
    workers.work(job, TWICE)
    assert _state(workers, job) == (JobState.DONE, StepState.DONE)


class Paused(Ledger):
    """After a commit that it did not see confirmed, the process stands still until its call is given up."""

    def __init__(self, workers: Workers) -> None:
        super().__init__(workers.house.database, lambda: None)
        self.workers = workers

    def write(self, fn: Callable[[Connection], T]) -> T:
        try:
            return super().write(fn)
        except CommitUnknown:
            time_passes(self.workers)
            settle_attempts(self.inner)
            raise


@pytest.mark.parametrize(
    ("action", "fault", "ends"),
    [
        (There, "commit unseen", (JobState.DONE, StepState.DONE)),
        (There, "commit lost", (JobState.DONE, StepState.DONE)),
        (Lost, "commit unseen", (JobState.DEAD, StepState.FAILED)),
        (Lost, "commit lost", (JobState.QUEUED, StepState.UNKNOWN)),
    ],
)
def test_a_search_that_is_given_up_after_a_commit_that_was_not_confirmed_is_not_taken_for_written(
    workers: Workers, action: type[Say], fault: str, ends: tuple[str, str]
) -> None:
    """It is closed with the same state either way."""
    job = _searches(workers, action)
    ledger = Paused(workers)
    workers.house.database = cast("Database", ledger)

    def answer(token: str) -> Any:
        ledger.fault = fault  # the next write is the closing
        return reply({})

    workers.provider.call = answer
    workers.work(job, TWICE)
    assert _state(workers, job) == ends
    assert ("attempt.late" in audit_kinds(workers.house)) is (fault == "commit lost")


class Seen(Lost):
    """A search finds it once it is shown."""

    def found(self, response: Response, call: Call) -> Said | None:
        return Said(id="7") if "there" in response.json() else None


def _stands_still(workers: Workers, job: str, *, passes: timedelta) -> None:
    """The next search's worker is paused until the other that has its job by then is through; then it finds it."""
    nine = StepSettings(attempts=9)

    def paused(token: str) -> Any:
        time_passes(workers, passes)
        lapse(workers.house, job)
        reclaim(workers.house.database, WorkerSettings(backoff=timedelta()))
        answers(workers, 200, id="8")  # the other's search, which finds nothing, and its call
        workers.work(job, nine)
        return reply({"there": "yes"})

    workers.provider.call = paused
    workers.work(job, nine)


def _done(action: type[Say]) -> float:
    labels = {"action": action.action_name(), "pattern": "delegated", "outcome": "done"}
    return REGISTRY.get_sample_value("aswhom_steps_total", labels) or 0


def test_a_search_that_stands_still_is_over_before_its_call_is_made_again(workers: Workers) -> None:
    """No housekeeping has settled it by then. What it finds after that says that the call was made twice."""
    job, before = _searches(workers, Seen), _done(Seen)
    _stands_still(workers, job, passes=timedelta(minutes=1))
    assert attempt_states(workers.house) == [*[AttemptState.NO_EFFECT] * 4, AttemptState.EFFECT]
    assert _state(workers, job) == (JobState.DONE, StepState.DONE)
    assert audit_kinds(workers.house)[-1] == "attempt.duplicate_effect"
    (step,) = steps_of(workers.house)
    assert (step.result, _done(Seen) - before) == ({"id": "8"}, 1), "the step ended once, by the call"


@pytest.mark.parametrize(
    ("answer", "fault"), [(200, None), (422, None), (200, "commit unseen"), (422, "commit unseen")]
)
def test_a_run_whose_call_is_answered_after_a_late_search_has_ended_its_step_goes_by_what_is_stored(
    workers: Workers, answer: int, fault: str | None
) -> None:
    told: list[str] = []
    job, nine = _searches(workers, Seen), StepSettings(attempts=9)
    ledger = fallible(workers)
    declare(workers, lambda run, event: told.append(run.do(Seen(text="hello"), as_=run.user).id))
    searches, called = threading.Event(), threading.Event()
    late = threading.Thread(target=workers.work, args=(job, nine))

    def call(token: str) -> Any:
        called.set()  # so that the search has its answer, which is written before this one
        late.join()
        ledger.fault = fault
        return reply({"id": "8"}, answer)

    def search(token: str) -> Any:
        workers.provider.call = call
        return reply({})

    def late_search(token: str) -> Any:
        time_passes(workers)
        lapse(workers.house, job)
        reclaim(workers.house.database, WorkerSettings(backoff=timedelta()))
        workers.provider.call = search
        searches.set()
        called.wait()
        return reply({"there": "yes"})

    workers.provider.call = late_search
    late.start()
    searches.wait()
    workers.work(job, nine)
    assert _state(workers, job) == (JobState.QUEUED, StepState.DONE)
    time_passes(workers)
    workers.work(job, nine)
    assert _state(workers, job) == (JobState.DONE, StepState.DONE)
    assert told == ["7", "7"], "the other worker's run, and the last"


def test_a_run_sends_nothing_while_another_worker_may_have_a_search_on_the_wire(workers: Workers) -> None:
    job = _searches(workers, Seen)
    _stands_still(workers, job, passes=timedelta())
    assert attempt_states(workers.house) == [AttemptState.NO_EFFECT, AttemptState.ADOPTED, AttemptState.NO_EFFECT]
    assert _state(workers, job) == (JobState.QUEUED, StepState.DONE)
    assert workers.house.row(job).reason == "an earlier attempt is not settled yet"


def test_a_late_finding_whose_commit_was_not_seen_is_recorded_once(workers: Workers) -> None:
    job = _searches(workers, There)
    ledger = fallible(workers)

    def paused(token: str) -> Any:
        time_passes(workers)
        settle_attempts(ledger.inner)
        ledger.fault = "commit unseen"  # the next write is the closing
        return reply({})

    workers.provider.call = paused
    workers.work(job, TWICE)
    assert audit_kinds(workers.house).count("attempt.late") == 1
    time_passes(workers)
    workers.work(job, TWICE)
    assert _state(workers, job) == (JobState.DONE, StepState.DONE)


def test_attempts_are_numbered_as_they_opened_also_where_a_search_is_refused_its_token(workers: Workers) -> None:
    declare(workers, partial(says, Lost))
    workers.house.workflow = replace(workers.house.workflow, uses={Lost: USER})
    job = workers.house.job()
    answers(workers, 500)
    workers.work(job)
    time_passes(workers)
    told = iter((401, 200, 200))
    workers.provider.call = lambda token: reply({"id": "9"}, next(told))
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    made = [(row.number, row.purpose) for row in attempts_of(workers.house)]
    assert made == [(1, "call"), (2, "probe"), (3, "probe"), (4, "call")]
