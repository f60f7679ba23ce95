"""Each step of each workflow refused, rate limited, revoked and killed: what the job comes to, and who wrote what.

The authors are the upstreams' own word. A kill is tried at the three points where a worker knows more than its ledger,
or less: the intent is committed, the answer is here, the result is committed. The payments are tried likewise in
`tests/payments/test_every_payment.py`, beside a service that asks us about their tokens; compensations, which follow a
revocation, in `test_every_compensation.py`.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import pytest

from identity.model import ScopeKind
from pipeline.resolution import resolve_by_hand
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.workflow import SERVICE, USER, Registry
from tests.payments.scenes import PAYMENTS
from tests.tasks.aftermaths import AFTERMATHS
from tests.tasks.faults import LIMITS, POINTS, REFUSALS
from tests.tasks.in_process_system import InProcessSystem
from tests.tasks.scenes import SCENES, TENANT, Scene

every_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
# Tried with every change; the rest with the slow tests.
QUICK = ("link_pull_request", "update_opportunity")
every_step = pytest.mark.parametrize(
    ("scene", "number"),
    [
        pytest.param(
            scene,
            number,
            id=f"{scene.name}-{number + 1}-{step.action}",
            marks=() if scene.name in QUICK else pytest.mark.slow,
        )
        for scene in SCENES
        for number, step in enumerate(scene.steps)
    ],
)


def the_job(system: InProcessSystem) -> Any:
    (job,) = system.jobs()
    return job


def written(system: InProcessSystem, scene: Scene) -> bool:
    """Everything was written once, by whom it shall be, and nothing else was."""
    return Counter(system.authors()) == Counter(scene.authors(system))


def test_each_action_of_every_shipped_workflow_is_tried_as_whom_it_may_run_and_all_that_follows_one() -> None:
    shipped = Registry.load(sorted(point.module for point in entry_points(group="aswhom.workflows")))
    declared_pairs = {
        (declared.name, action.action_name(), who)
        for declared in shipped
        for action, allowed in declared.uses.items()
        for who in (USER, SERVICE)
        if who in allowed
    }
    tried = {
        (scene.workflow, step.action, SERVICE if step.as_ == "service" else USER)
        for scene in SCENES
        for step in scene.steps
    }
    paid = {(payment.workflow, action, USER) for payment in PAYMENTS for action in payment.actions}
    assert tried | paid == declared_pairs
    followed = {
        (declared.name, action.action_name(), how.by.action_name())
        for declared in shipped
        for action, how in declared.compensations.items()
    }
    assert {(one.of.workflow, one.undone, one.step.action) for one in AFTERMATHS} == followed


@every_scene
def test_the_ordinary_work_is_done_in_the_right_names(system: InProcessSystem, scene: Scene) -> None:
    scene.start(system)
    system.settle()
    assert (the_job(system).state, the_job(system).workflow) == (JobState.DONE, scene.workflow)
    assert [step.action for step in system.steps()] == [step.action for step in scene.steps]
    assert written(system, scene)
    # Each write is the attempt of the step whose principal the upstream saw.
    assert [step.principal_id for step in system.steps()] == [f"{TENANT}.{step.as_}" for step in scene.steps]


@every_step
def test_a_step_that_is_refused_ends_the_job_that_needs_it_and_is_not_tried_again(
    system: InProcessSystem, scene: Scene, number: int
) -> None:
    step = scene.steps[number]
    fault = {"endpoint": step.endpoint, **REFUSALS[step.upstream]}
    system.when("after_commit", number, lambda: system.sandbox.order(step.upstream, "faults", **fault))
    scene.start(system)
    system.settle()
    if step.dispensable:
        assert the_job(system).state == JobState.DONE
    else:
        assert the_job(system).state == JobState.DEAD
        assert the_job(system).reason.startswith(f"ActionFailed: {step.action} failed: ")
    assert [row.action for row in system.steps() if row.state == StepState.FAILED] == [step.action]
    refused = [row for row in system.attempts() if row.state != AttemptState.EFFECT]
    assert [row.state for row in refused] == [AttemptState.NO_EFFECT]
    others = [
        one.author(system)
        for position, one in enumerate(scene.steps)
        if one.writes and (position < number or (scene.carries_on and step.writes and position != number))
    ]
    assert Counter(system.authors()) == Counter(others)


@every_step
def test_a_step_that_is_rate_limited_waits_in_the_ledger_and_is_done_once(
    system: InProcessSystem, scene: Scene, number: int
) -> None:
    step = scene.steps[number]
    fault = {"endpoint": step.endpoint, **LIMITS[step.upstream]}
    system.when("after_commit", number, lambda: system.sandbox.order(step.upstream, "faults", **fault))
    scene.start(system)
    system.work_once()
    assert the_job(system).state == JobState.QUEUED
    assert the_job(system).due_at > the_job(system).created_at
    assert the_job(system).runs_spent == 0
    system.settle()
    assert the_job(system).state == JobState.DONE
    assert len(system.attempts()) == len(scene.steps) + 1
    assert written(system, scene)


@every_step
def test_a_step_whose_account_is_revoked_is_not_made(system: InProcessSystem, scene: Scene, number: int) -> None:
    step = scene.steps[number]
    scene.start(system)
    system.when("after_commit", number, lambda: system.revoke(ScopeKind.ACCOUNT, step.account, TENANT))
    system.settle()
    assert the_job(system).state == JobState.CANCELLED
    assert len(system.attempts()) == number
    before = [one.author(system) for one in scene.steps[:number] if one.writes]
    assert Counter(system.authors()) == Counter(before)


@pytest.mark.parametrize("point", POINTS)
@every_step
def test_a_worker_killed_at_a_step_does_nothing_twice_and_loses_nothing(
    system: InProcessSystem, scene: Scene, number: int, point: str
) -> None:
    """Slack cannot be asked what became of a new message: there the job waits for a person, who looks and says."""
    system.when(point, number + 1, system.kill)
    scene.start(system)
    system.settle()
    killed = scene.steps[number]
    in_doubt = killed.upstream == "slack" and not killed.repeatable and point != "after_commit"
    if in_doubt:
        assert (the_job(system).state, the_job(system).wait) == (JobState.WAITING, Wait.UNKNOWN)
        look_and_say(system)
        system.settle()
    assert the_job(system).state == JobState.DONE
    assert the_job(system).runs_spent == 1
    sent_again = [killed.author(system)] if killed.repeatable and point == "after_call" else []
    assert Counter(system.authors()) == Counter(scene.authors(system) + sent_again)


def look_and_say(system: InProcessSystem) -> None:
    """An operator looks at Slack and says of the call in doubt what became of it."""
    posted = {message["attempt"]: message for message in system.sandbox.read("slack", "messages")}
    (attempt,) = [row for row in system.attempts() if row.state == AttemptState.UNKNOWN]
    message = posted.get(attempt.id)
    say = partial(
        resolve_by_hand,
        job=attempt.job_id,
        calls=[attempt.id],
        effect=message is not None,
        result=message and {"channel": message["channel"], "ts": message["ts"]},
        workflows=system.registry,
        by="user:operator",
        now=datetime.now(UTC),
    )
    system.runtime.database.write(say)
