"""A process that was told to stop: what is on the wire ends, and nothing more begins."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pipeline.run import Run
from pipeline.services import StepSettings
from pipeline.states import JobState, StepState
from tests.identity.providers import reply
from tests.ledger.house import Say
from tests.ledger.office import Office
from tests.ledger.test_runs import TOKEN, declare, say_and_sleep, steps_of


def test_a_run_whose_process_is_told_to_stop_begins_no_further_call_and_is_taken_up_by_the_next(
    office: Office,
) -> None:
    def says_thrice(run: Run[Any], event: Any) -> None:
        for text in ("one", "two", "three"):
            run.do(Say(text=text), as_=run.user)

    declare(office, says_thrice)
    job = office.house.job()
    office.work(job, stopping=lambda: bool(office.tokens))  # told while the first call is on the wire
    row = office.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.reason == "its process was told to stop: yielded at a step boundary"
    assert office.tokens == [TOKEN]
    assert [step.state for step in steps_of(office.house)] == [StepState.DONE]
    office.work(job)
    assert office.house.row(job).state == JobState.DONE
    assert office.tokens == [TOKEN] * 3


def test_a_process_that_is_told_to_stop_opens_no_first_step_and_finishes_none_anew(office: Office) -> None:
    declare(office, say_and_sleep)
    job = office.house.job()
    office.work(job, stopping=lambda: True)
    assert office.house.row(job).state == JobState.QUEUED
    assert (office.tokens, steps_of(office.house)) == ([], [])
    office.provider.call = lambda token: reply({}, 503)
    office.work(job, StepSettings(backoff=timedelta()))
    (opened,) = steps_of(office.house)
    assert opened.state == StepState.OPEN
    office.provider.call = lambda token: pytest.fail("a call began")
    office.work(job, stopping=lambda: True)
    assert office.house.row(job).state == JobState.QUEUED
