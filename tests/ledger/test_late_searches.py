"""Searches for an effect that are over before their finding is written: what that still says, and of which calls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, text, update

from pipeline import revocation
from pipeline.desk.unanswered import unanswered_calls
from pipeline.ledger import jobs, queries
from pipeline.ledger.intents import Intent, Opened
from pipeline.migrations import upgrade
from pipeline.resolution import resolve_by_hand
from pipeline.states import AttemptState, JobState, Purpose, StepState, Wait
from pipeline.tables import attempts
from pipeline.workflow import Registry
from tests.ledger.acts import attempt_states, close, open_, revoke, settle, step_state, steps_of
from tests.ledger.house import House, account_scope, intent_of


def _probed(house: House) -> tuple[Intent, Intent]:
    """A step whose call got no answer, and a search for its effect whose worker died."""
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    look = intent_of(house, asked.job, step=asked.step, purpose=Purpose.PROBE, number=2, repeats_unknown=True)
    assert isinstance(open_(house, look), Opened)
    settle(house, look)
    return asked, look


def test_a_search_whose_worker_died_is_over_and_its_step_is_as_much_in_doubt_as_before(house: House) -> None:
    asked, look = _probed(house)
    assert attempt_states(house) == [AttemptState.UNKNOWN, AttemptState.NO_EFFECT]
    assert step_state(house, asked.step) == StepState.UNKNOWN
    made = revoke(house, account_scope())  # it is no call in flight any more
    row = house.database.read(partial(revocation.load, revocation=made))
    found = house.database.read(partial(revocation.in_flight, row=row))
    assert [attempt.id for attempt in found] == [asked.attempt] != [look.attempt]


def test_an_effect_that_a_search_finds_late_counts(house: House) -> None:
    asked, look = _probed(house)
    close(house, look, AttemptState.NO_EFFECT, StepState.DONE, result={"id": "9"}, resolves=AttemptState.ADOPTED)
    assert attempt_states(house) == [AttemptState.ADOPTED, AttemptState.NO_EFFECT]
    (step,) = steps_of(house)
    assert (step.state, step.result) == (StepState.DONE, {"id": "9"})


def test_a_search_that_found_nothing_and_says_so_late_rules_nothing_out(house: House) -> None:
    """By then the call may have been made again, and be in doubt itself."""
    asked, look = _probed(house)
    close(house, look, AttemptState.NO_EFFECT, StepState.OPEN, resolves=AttemptState.NO_EFFECT)
    assert attempt_states(house) == [AttemptState.UNKNOWN, AttemptState.NO_EFFECT]
    assert step_state(house, asked.step) == StepState.UNKNOWN


def test_a_search_that_an_older_version_gave_up_is_over_after_the_upgrade(house: House) -> None:
    asked, look = _probed(house)
    given_up = update(attempts).where(attempts.c.id == look.attempt).values(state=AttemptState.UNKNOWN, closed=None)

    def as_it_was(c: Connection) -> None:
        c.execute(given_up)
        c.execute(text("update alembic_version set version_num = '0035'"))

    house.database.write(as_it_was)
    upgrade(house.database)
    assert attempt_states(house) == [AttemptState.UNKNOWN, AttemptState.NO_EFFECT]
    after = revoke(house, account_scope())
    row = house.database.read(partial(revocation.load, revocation=after))
    found = house.database.read(partial(revocation.in_flight, row=row))
    assert [attempt.id for attempt in found] == [asked.attempt]


def test_an_operator_is_asked_about_calls_and_no_searches(house: House) -> None:
    asked, _ = _probed(house)
    days = timedelta(days=1)
    wait = partial(jobs.park, wait=Wait.UNKNOWN, waits_for=None, due_in=days, expires_in=days, reason="nobody knows")
    house.database.write(partial(wait, job=asked.job))
    (call,) = unanswered_calls(house.database.read(lambda c: queries.steps_of(c, asked.job.id)))
    assert call.attempt["id"] == asked.attempt
    say = partial(resolve_by_hand, workflows=Registry([house.workflow]), by="ops", now=datetime.now(UTC))
    say = partial(say, job=asked.job.id, effect=True, result={"id": "9"}, calls=[asked.attempt])
    house.database.write(say)
    assert house.row(asked.job.id).state == JobState.QUEUED
