"""Each compensation of each workflow done, refused, rate limited, revoked and killed, in a job of its own.

What is to be compensated was done by a job that a revocation stopped in the middle. The receipt of that revocation says
what came of it, and the upstreams who wrote what.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from identity.model import ScopeKind
from pipeline.authoring.declared_workflow import PLATFORM_AGENT
from pipeline.states import JobState
from tests.tasks.aftermaths import AFTERMATHS, Aftermath, told
from tests.tasks.faults import LIMITS, POINTS, REFUSALS
from tests.tasks.in_process_system import InProcessSystem
from tests.tasks.scenes import TENANT

# One is tried with every change; the rest with the slow tests.
every_aftermath = pytest.mark.parametrize(
    "aftermath",
    [
        pytest.param(one, id=one.workflow, marks=pytest.mark.slow if number else ())
        for number, one in enumerate(AFTERMATHS)
    ],
)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    named: str = request.param
    return named


def what_follows(system: InProcessSystem) -> Any:
    """The job of the compensation."""
    _, follows = system.jobs()
    return follows


def order(system: InProcessSystem, aftermath: Aftermath, faults: dict[str, dict[str, Any]]) -> None:
    step = aftermath.step
    system.sandbox.order(step.upstream, "faults", endpoint=step.endpoint, **faults[step.upstream])


def written(system: InProcessSystem, aftermath: Aftermath) -> bool:
    """What was written before the job was stopped, and the compensation, once and as the service."""
    return Counter(system.authors()) == Counter([*aftermath.before(system), aftermath.step.author(system)])


def only_before(system: InProcessSystem, aftermath: Aftermath) -> bool:
    return Counter(system.authors()) == Counter(aftermath.before(system))


@every_aftermath
def test_what_was_stopped_in_the_middle_is_compensated_in_the_platforms_name(
    system: InProcessSystem, aftermath: Aftermath
) -> None:
    made = aftermath.start(system)
    system.settle()
    stopped, follows = system.jobs()
    assert (stopped.state, stopped.workflow) == (JobState.CANCELLED, aftermath.of.workflow)
    assert (follows.state, follows.workflow) == (JobState.DONE, aftermath.workflow)
    assert (follows.agent_id, follows.user_id) == (PLATFORM_AGENT, None)
    (step,) = [row for row in system.steps() if row.job_id == follows.id]
    assert (step.action, step.principal_id) == (aftermath.step.action, f"{TENANT}.service")
    assert written(system, aftermath)
    assert told(system, made) == ("done", None)


@every_aftermath
def test_a_compensation_that_is_refused_is_dead_and_the_receipt_says_why(
    system: InProcessSystem, aftermath: Aftermath
) -> None:
    made = aftermath.start(system)
    order(system, aftermath, REFUSALS)
    system.settle()
    follows = what_follows(system)
    assert follows.state == JobState.DEAD
    assert follows.reason.startswith(f"ActionFailed: {aftermath.step.action} failed: ")
    assert only_before(system, aftermath)
    assert told(system, made) == ("failed", follows.reason)


@every_aftermath
def test_a_compensation_that_is_rate_limited_waits_in_the_ledger_and_is_done_once(
    system: InProcessSystem, aftermath: Aftermath
) -> None:
    made = aftermath.start(system)
    order(system, aftermath, LIMITS)
    system.work_once()
    follows = what_follows(system)
    assert (follows.state, follows.runs_spent) == (JobState.QUEUED, 0)
    assert follows.due_at > follows.created_at
    assert only_before(system, aftermath)
    system.settle()
    assert what_follows(system).state == JobState.DONE
    assert len([row for row in system.attempts() if row.job_id == follows.id]) == 2
    assert written(system, aftermath)
    assert told(system, made) == ("done", None)


@every_aftermath
def test_a_compensation_whose_own_account_is_revoked_is_not_made_and_the_receipt_says_so(
    system: InProcessSystem, aftermath: Aftermath
) -> None:
    made = aftermath.start(system)
    system.revoke(ScopeKind.ACCOUNT, str(aftermath.step.account), TENANT)
    system.settle()
    follows = what_follows(system)
    assert follows.state == JobState.CANCELLED
    assert [row for row in system.attempts() if row.job_id == follows.id] == []
    assert only_before(system, aftermath)
    assert told(system, made) == ("failed", follows.reason)
    assert str(aftermath.step.account) in follows.reason


@pytest.mark.parametrize("point", POINTS)
@every_aftermath
def test_a_worker_killed_at_a_compensation_does_nothing_twice_and_loses_nothing(
    system: InProcessSystem, aftermath: Aftermath, point: str
) -> None:
    made = aftermath.start(system)
    system.when(point, aftermath.stopped_at + 1, system.kill)  # the stopped job came there as often as it had steps
    system.settle()
    follows = what_follows(system)
    assert (follows.state, follows.runs_spent) == (JobState.DONE, 1)
    assert written(system, aftermath)
    assert told(system, made) == ("done", None)
