"""A call of unknown outcome is asked about until somebody says what became of it, whatever becomes of its job."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import select, update

from identity.console.roles import Role
from identity.model import Scope, ScopeKind
from pipeline.ledger.paging import Turn
from pipeline.states import JobState, Wait
from pipeline.tables import attempts, jobs
from pipeline.views import tenant_views, troubles
from tests.console.console_app import ConsoleApp


def cancelled(console: ConsoleApp, job: str) -> None:
    console.at(Role.OPERATOR).sends(f"/console/jobs/{job}/cancel")
    assert console.state(job) is JobState.CANCELLED


def revoked(console: ConsoleApp, job: str) -> None:
    console.revoke(Scope(kind=ScopeKind.USER, key="acme.ada"), "acme")
    assert console.state(job) is JobState.CANCELLED


def given_up(console: ConsoleApp, job: str) -> None:
    dead = update(jobs).where(jobs.c.id == job).values(state=JobState.DEAD, wait=None)
    console.database.write(lambda c: c.execute(dead))


def asked_for(console: ConsoleApp) -> tuple[int, list[str]]:
    """The calls that are counted, and the jobs in the list that the console, the API and the command line have."""
    page = partial(tenant_views.jobs_page, tenant="acme", turn=Turn(limit=9), wait=Wait.UNKNOWN)
    read = console.database.read
    return read(troubles.look).unanswered, [row["id"] for row in read(page).rows]


@pytest.mark.parametrize("end", [cancelled, revoked, given_up])
def test_a_call_of_unknown_outcome_is_asked_about_whatever_ends_its_job(
    console: ConsoleApp, end: Callable[[ConsoleApp, str], None]
) -> None:
    job, operator = console.in_doubt(), console.at(Role.OPERATOR, "acme")
    assert "the overview asks for it until somebody says" in operator.sees(f"/console/jobs/{job}")
    assert asked_for(console) == (1, [job])
    end(console, job)
    assert asked_for(console) == (1, [job])
    assert "<strong>call of unknown outcome</strong>" in operator.sees("/console/")
    assert job in operator.sees("/console/jobs?wait=unknown")
    (call,) = console.rows(select(attempts.c.id))
    answer = operator.sends(f"/console/jobs/{job}/resolve", call=call.id, effect="no")
    assert answer.status_code == 303
    assert asked_for(console) == (0, [])
    assert "of unknown outcome" not in operator.sees("/console/")


def test_a_call_that_its_job_looks_for_by_itself_asks_nobody(console: ConsoleApp) -> None:
    job = console.in_doubt()
    queued = update(jobs).where(jobs.c.id == job).values(state=JobState.QUEUED, wait=None)
    console.database.write(lambda c: c.execute(queued))
    assert asked_for(console) == (0, [])
