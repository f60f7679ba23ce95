"""Housekeeping reads what is due or lapsed, and writes later: what others did in between stands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from identity.sql.store import Store
from pipeline.duties import reconcile
from pipeline.execution.worker import WorkerSettings
from pipeline.jobs import claims
from pipeline.jobs.intents import Opened
from pipeline.jobs.moves import move_job
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.steps import openings
from tests.ledger.acts import attempt_states, close, lapse, open_, until_awaited
from tests.ledger.house import House, intent_of

T = TypeVar("T")

DAY = timedelta(days=1)
LAST_RUN = WorkerSettings(runs=1)


class Preceded:
    """A store whose writes come after what others do, as for a host that stood still or waited for its turn."""

    def __init__(self, store: Store, others: Callable[[], object]) -> None:
        self._store = store
        self._others = others

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._store.read(fn)

    def write(self, fn: Callable[[Connection], T]) -> T:
        self._others()
        return self._store.write(fn)


def _park(house: House, job: str, wait: Wait, *, due_in: timedelta, expires_in: timedelta) -> None:
    park = partial(claims.park, job=house.claim(job), wait=wait, waits_for=str(wait), reason=str(wait))
    assert house.database.write(partial(park, due_in=due_in, expires_in=expires_in)) is JobState.WAITING


@pytest.mark.parametrize(
    ("found_due", "expires_in"), [(Wait.CONSENT, timedelta()), (Wait.TIME, DAY), (Wait.UNKNOWN, DAY)]
)
def test_a_wait_that_began_since_another_was_found_due_goes_on(
    house: House, found_due: Wait, expires_in: timedelta
) -> None:
    """It is neither buried for what the first one missed, nor woken, nor put off; and it keeps its dates."""
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)  # so that nothing but a person ends an unknown wait
    job = asked.job.id
    house.database.write(partial(claims.requeue, job=asked.job, delay=timedelta(), reason="looks again"))
    _park(house, job, found_due, due_in=timedelta(), expires_in=expires_in)
    parked = []

    def goes_on() -> None:
        house.database.write(partial(move_job, job=job, to=JobState.QUEUED))
        _park(house, job, Wait.UPSTREAM, due_in=DAY, expires_in=DAY)
        parked.append(house.row(job))

    reconcile.wake_due(Preceded(house.database, goes_on))
    assert [house.row(job)] == parked


def test_a_claim_that_was_extended_since_it_was_found_lapsed_is_its_workers(house: House) -> None:
    """The worker stood still, came back, and has its call on the wire: its job is not given to another, nor dead."""
    job = house.job()
    asked = intent_of(house, house.claim(job))
    lapse(house, job)
    reconcile.reclaim(Preceded(house.database, lambda: open_(house, asked)), LAST_RUN)
    row = house.row(job)
    assert (row.state, row.fence, row.runs_spent) == (JobState.RUNNING, asked.job.fence, 0)
    assert attempt_states(house) == [AttemptState.OPEN]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_claim_that_is_being_extended_while_housekeeping_waits_for_it_is_its_workers(house: House) -> None:
    """SQLite has one writer anyway."""
    job = house.job()
    asked = intent_of(house, house.claim(job))
    lapse(house, job)
    reclaiming = threading.Thread(target=reconcile.reclaim, args=(house.database, LAST_RUN))
    opened = until_awaited(house.database, partial(openings.open_attempt, intent=asked), by=reclaiming)
    assert isinstance(opened, Opened)
    assert house.row(job).state == JobState.RUNNING
