"""Each step of each workflow refused, rate limited, revoked and killed: what the job comes to, and who wrote what.

The authors are the upstreams' own word. A kill is tried at the three points where a worker knows more than its ledger,
or less: the intent is committed, the answer is here, the result is committed. The payments are tried likewise in
`tests/payments/test_every_payment.py`, beside a service that asks us about their tokens; compensations, which follow a
revocation, in `test_every_compensation.py`.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from typing import Any

import pytest

from identity.model import ScopeKind
from pipeline.authoring.registry import Registry
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.throttle.budget import Budget
from pipeline.workflow import SERVICE, USER
from tests.payments.scenes import PAYMENTS
from tests.tasks.aftermaths import AFTERMATHS
from tests.tasks.faults import LIMITS, POINTS, REFUSALS
from tests.tasks.in_process_system import InProcessSystem
from tests.tasks.scenes import CONNECTIONS, SCENES, TENANT, Scene

every_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)


def _each_step(*quick: str, only_persons: bool = False) -> pytest.MarkDecorator:
    """Those of the scenes *quick* are tried with every change; the rest with the slow tests."""
    return pytest.mark.parametrize(
        ("scene", "number"),
        [
            pytest.param(
                scene,
                number,
                id=f"{scene.name}-{number + 1}-{step.action}",
                marks=() if scene.name in quick else pytest.mark.slow,
            )
            for scene in SCENES
            for number, step in enumerate(scene.steps)
            if not (only_persons and step.as_ == "service")
        ],
    )


every_step = _each_step("link_pull_request", "update_opportunity")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    named: str = request.param
    return named


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


@_each_step("link_pull_request-two-labels", "close_issues-two-issues", "update_opportunity")
def test_a_step_that_is_refused_ends_the_job_that_needs_it_and_is_done_by_its_replay(
    system: InProcessSystem, scene: Scene, number: int
) -> None:
    """Its replay also does what was left out because of it, and does nothing twice."""
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
    others = [one.author(system) for one in scene.without(number) if one.writes]
    assert Counter(system.authors()) == Counter(others)
    if step.dispensable:
        return
    system.replay_the_dead()
    system.settle()
    assert (the_job(system).state, the_job(system).reason) == (JobState.DONE, None)
    assert written(system, scene)


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


@_each_step("update_opportunity")
def test_a_step_whose_budget_is_empty_is_not_opened_and_waits_in_the_ledger(
    system_with_budgets: InProcessSystem, scene: Scene, number: int
) -> None:
    """Nobody asks who would be refused, so waiting is no attempt."""
    system, step = system_with_budgets, scene.steps[number]
    (endpoints,) = {
        action.facts.endpoints
        for action in system.registry.get(scene.workflow).uses
        if action.action_name() == step.action
    }
    assert endpoints is not None
    budget = Budget(provider=step.upstream, account=step.account, endpoints=endpoints)
    system.when("after_commit", number, lambda: system.use_up(budget))
    scene.start(system)
    system.work_once()
    assert the_job(system).state == JobState.QUEUED
    assert the_job(system).reason == f"the rate limit of {step.action} is used up for now"
    assert the_job(system).due_at > datetime.now(UTC) + timedelta(seconds=30)
    assert the_job(system).runs_spent == 0
    assert [row.action for row in system.steps()] == [one.action for one in scene.steps[:number]]
    system.settle()
    assert the_job(system).state == JobState.DONE
    assert len(system.attempts()) == len(scene.steps)
    assert written(system, scene)


def test_a_question_is_ended_while_slack_pauses_new_messages(system_with_budgets: InProcessSystem) -> None:
    """`chat.update` has a budget of its own, which a Retry-After of `chat.postMessage` does not touch."""
    system = system_with_budgets
    (asks,) = (scene for scene in SCENES if scene.workflow == "ask_in_slack")
    (mention,) = (scene for scene in SCENES if scene.workflow == "answer_mention")
    asks.start(system)
    system.when("after_commit", 2, system.kill)  # the question and its outcome are posted, the buttons still there
    system.work_once()
    paused = {"endpoint": "chat_post_message", "status": 429, "headers": {"Retry-After": "3600"}}
    system.sandbox.order("slack", "faults", mode="status", **paused)
    mention.start(system)
    system.work_once()
    system.settle(until=lambda: system.jobs()[0].state == JobState.DONE, pauses_end=False)
    states = {job.workflow: job.state for job in system.jobs()}
    assert states == {"ask_in_slack": JobState.DONE, "answer_mention": JobState.QUEUED}
    assert Counter(system.authors()) == Counter(asks.authors(system))
    assert len(system.attempts()) == len(asks.steps) + 1  # the mention's answer was not tried again


@every_step
def test_a_step_whose_account_is_revoked_is_not_made(system: InProcessSystem, scene: Scene, number: int) -> None:
    step = scene.steps[number]
    scene.start(system)
    system.when("after_commit", number, lambda: system.revoke(ScopeKind.ACCOUNT, str(step.account), TENANT))
    system.settle()
    assert the_job(system).state == JobState.CANCELLED
    assert len(system.attempts()) == number
    before = [one.author(system) for one in scene.steps[:number] if one.writes]
    assert Counter(system.authors()) == Counter(before)


@_each_step("link_pull_request", "update_opportunity", only_persons=True)
def test_a_step_whose_consent_was_withdrawn_at_the_provider_waits_for_a_new_one_and_is_done_once(
    system: InProcessSystem, scene: Scene, number: int
) -> None:
    """The provider does not report the withdrawal, so it is first seen as a refused token at this step."""
    step = scene.steps[number]
    scene.start(system)
    withdrawn = {"provider": step.upstream, "user": step.as_}
    system.when("after_commit", number, lambda: system.sandbox.order("auth", "revoke", **withdrawn))
    system.settle()
    assert (the_job(system).state, the_job(system).wait) == (JobState.WAITING, Wait.CONSENT)
    states = [attempt.state for attempt in system.attempts()]
    assert states == [AttemptState.EFFECT] * number + [AttemptState.NO_EFFECT]
    before = [one.author(system) for one in scene.steps[:number] if one.writes]
    assert Counter(system.authors()) == Counter(before)
    system.connect(TENANT, step.as_, CONNECTIONS[step.upstream])
    system.settle()
    assert (the_job(system).state, the_job(system).reason) == (JobState.DONE, None)
    assert written(system, scene)


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
    if killed.tells_nothing and point != "after_commit":
        assert (the_job(system).state, the_job(system).wait) == (JobState.WAITING, Wait.UNKNOWN)
        system.look_and_say()
        system.settle()
    assert the_job(system).state == JobState.DONE
    assert the_job(system).runs_spent == 1
    sent_again = [killed.author(system)] if killed.repeatable and point == "after_call" else []
    assert Counter(system.authors()) == Counter(scene.authors(system) + sent_again)
