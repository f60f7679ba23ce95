"""A process that was told to stop: what is on the wire ends, and nothing more begins. One that is left hands back."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from pipeline.execution.services import StepSettings
from pipeline.run import Run
from pipeline.states import JobState, StepState
from tests.identity.providers import reply
from tests.ledger.acts import steps_of
from tests.ledger.house import Say
from tests.ledger.workers import TOKEN, Workers, declare, say_and_sleep
from tests.waiting import PATIENCE


def test_a_run_whose_process_is_told_to_stop_begins_no_further_call_and_is_taken_up_by_the_next(
    workers: Workers,
) -> None:
    def says_thrice(run: Run[Any], event: Any) -> None:
        for text in ("one", "two", "three"):
            run.do(Say(text=text), as_=run.user)

    declare(workers, says_thrice)
    job = workers.house.job()
    workers.work(job, stopping=lambda: bool(workers.tokens))  # told while the first call is on the wire
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.reason == "its process was told to stop: yielded at a step boundary"
    assert workers.tokens == [TOKEN]
    assert [step.state for step in steps_of(workers.house)] == [StepState.DONE]
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    assert workers.tokens == [TOKEN] * 3


def test_a_process_that_is_told_to_stop_opens_no_first_step_and_finishes_none_anew(workers: Workers) -> None:
    declare(workers, say_and_sleep)
    job = workers.house.job()
    workers.work(job, stopping=lambda: True)
    assert workers.house.row(job).state == JobState.QUEUED
    assert (workers.tokens, steps_of(workers.house)) == ([], [])
    workers.provider.call = lambda token: reply({}, 503)
    workers.work(job, StepSettings(backoff=timedelta()))
    (opened,) = steps_of(workers.house)
    assert opened.state == StepState.OPEN
    workers.provider.call = lambda token: pytest.fail("a call began")
    workers.work(job, stopping=lambda: True)
    assert workers.house.row(job).state == JobState.QUEUED


def test_a_process_that_is_left_spends_a_run_of_each_overdue_job_and_hands_the_others_back(workers: Workers) -> None:
    together, release = threading.Barrier(4), threading.Event()

    def hangs(run: Run[Any], event: Any) -> None:
        together.wait(PATIENCE)
        release.wait(PATIENCE)

    declare(workers, hangs)
    worker, house = workers.worker(), workers.house
    jobs = [house.job() for _ in range(3)]
    threads = [threading.Thread(target=worker.handle, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    together.wait(PATIENCE)
    worker.spend(jobs[:2])
    assert house.row(jobs[2]).state == JobState.RUNNING
    worker.hand_back(besides=jobs[:2])
    seen = [(row.state, row.runs_spent, row.claimed_until) for row in map(house.row, jobs)]
    assert seen == [(JobState.QUEUED, 1, None), (JobState.QUEUED, 1, None), (JobState.QUEUED, 0, None)]
    release.set()
    for thread in threads:
        thread.join(30)
    assert {house.row(job).state for job in jobs} == {JobState.QUEUED}  # what comes too late changes nothing
