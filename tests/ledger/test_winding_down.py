"""A process that was told to stop: what is on the wire ends, and nothing more begins. One that is left hands back."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from pipeline.run import Run
from pipeline.services import StepSettings
from pipeline.states import JobState, StepState
from tests.identity.providers import reply
from tests.ledger.acts import steps_of
from tests.ledger.house import Say
from tests.ledger.office import TOKEN, Office, declare, say_and_sleep


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


def test_a_process_that_is_left_spends_a_run_of_each_overdue_job_and_hands_the_others_back(office: Office) -> None:
    together, release = threading.Barrier(4), threading.Event()

    def hangs(run: Run[Any], event: Any) -> None:
        together.wait(30)
        release.wait(30)

    declare(office, hangs)
    worker, house = office.worker(), office.house
    jobs = [house.job() for _ in range(3)]
    threads = [threading.Thread(target=worker.handle, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    together.wait(30)
    worker.leave(jobs[:2])
    seen = [(row.state, row.runs_spent, row.claimed_until) for row in map(house.row, jobs)]
    assert seen == [(JobState.QUEUED, 1, None), (JobState.QUEUED, 1, None), (JobState.QUEUED, 0, None)]
    release.set()
    for thread in threads:
        thread.join(30)
    assert {house.row(job).state for job in jobs} == {JobState.QUEUED}  # what comes too late changes nothing
