"""Each step of each payment refused, rate limited, revoked and killed: what the job comes to, and what money moved.

As `tests/tasks/test_every_step.py` has it of the other workflows. What moves money waits for people's yes before.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from identity.model import ScopeKind
from pipeline.states import AttemptState, JobState, StepState
from tests.payments.payments import Payments
from tests.payments.scenes import PAYMENTS, Payment

pytestmark = pytest.mark.slow

PAGE = "<html><body>nginx</body></html>"  # what a gateway in front of them says, whatever the status

every_step = pytest.mark.parametrize(
    ("payment", "number"),
    [
        pytest.param(payment, number, id=f"{payment.workflow}-{number + 1}-{action}")
        for payment in PAYMENTS
        for number, action in enumerate(payment.actions)
    ],
)


def moved_once(payments: Payments, payment: Payment) -> bool:
    """Its money, and none besides."""
    return [{name: one[name] for name in payment.moves} for one in payments.movements()] == [payment.moves]


def tries(payments: Payments) -> list[Any]:
    return [attempt.state for attempt in payments.system.attempts()]


@pytest.mark.parametrize("payment", PAYMENTS, ids=lambda payment: payment.workflow)
def test_the_ordinary_work_moves_its_money_once(payments: Payments, payment: Payment) -> None:
    payment.begin(payments, before=0)
    assert payment.finish(payments).state == JobState.DONE
    assert [step.action for step in payments.system.steps()] == list(payment.actions)
    assert {(one.principal_id, one.outcome) for one in payments.capabilities()} == {("acme.ada", "effect")}
    assert payments.capabilities()[-1].approved_by == sorted(f"acme.{name}" for name in payment.approvers)
    assert moved_once(payments, payment)


@every_step
def test_a_step_that_is_refused_ends_the_job_and_moves_nothing(
    payments: Payments, payment: Payment, number: int
) -> None:
    said = {"error": "insufficient_scope", "reason": "resource"}
    payment.begin(payments, before=number)
    payments.order(endpoint=payment.endpoints[number], mode="status", status=403, body=said)
    job = payment.finish(payments)
    assert job.state == JobState.DEAD
    assert job.reason.startswith(f"ActionFailed: {payment.actions[number]} failed: the invoices say insufficient_scope")
    assert [row.action for row in payments.system.steps() if row.state == StepState.FAILED] == [payment.actions[number]]
    assert tries(payments) == [AttemptState.EFFECT] * number + [AttemptState.NO_EFFECT]
    assert payments.movements() == []


@every_step
def test_a_step_that_a_gateway_refuses_ends_the_job_and_leaves_nothing_in_doubt(
    payments: Payments, payment: Payment, number: int
) -> None:
    payment.begin(payments, before=number)
    payments.order(endpoint=payment.endpoints[number], mode="status", status=403, body=PAGE)
    job = payment.finish(payments)
    assert (job.state, job.runs_spent) == (JobState.DEAD, 0)
    assert job.reason == f"ActionFailed: {payment.actions[number]} failed: status 403"
    assert tries(payments) == [AttemptState.EFFECT] * number + [AttemptState.NO_EFFECT]
    assert payments.movements() == []


@pytest.mark.parametrize("body", [None, PAGE], ids=["theirs", "a-gateways"])
@every_step
def test_a_step_that_is_rate_limited_waits_in_the_ledger_and_is_done_once(
    payments: Payments, payment: Payment, number: int, body: str | None
) -> None:
    payment.begin(payments, before=number)
    wait = {"Retry-After": "7"}
    payments.order(endpoint=payment.endpoints[number], mode="status", status=429, headers=wait, body=body)
    asked = datetime.now(UTC)
    payments.system.work_once()
    (job,) = payments.system.jobs()
    assert (job.state, job.runs_spent) == (JobState.QUEUED, 0)
    assert job.due_at - asked >= timedelta(seconds=7)
    assert payment.finish(payments).state == JobState.DONE
    assert sorted(tries(payments)) == sorted([AttemptState.NO_EFFECT, AttemptState.EFFECT, AttemptState.EFFECT])
    assert moved_once(payments, payment)


@pytest.mark.parametrize("kind", [ScopeKind.USER, ScopeKind.AGENT, ScopeKind.CONNECTION], ids=str)
@every_step
def test_a_step_whose_authority_is_revoked_is_not_made(
    payments: Payments, payment: Payment, number: int, kind: ScopeKind
) -> None:
    """By the time of the second step people have said yes: a revocation comes before that."""
    of = {ScopeKind.USER: "acme.ada", ScopeKind.AGENT: "accounts-payable", ScopeKind.CONNECTION: "invoices"}
    payment.begin(payments, before=number)
    payments.system.revoke(kind, of[kind], "acme")
    (job,) = payments.system.settle()
    assert job.state == JobState.CANCELLED
    assert tries(payments) == [AttemptState.EFFECT] * number
    assert payments.movements() == []


@pytest.mark.parametrize("point", ["before_call", "after_call", "after_commit"])
@every_step
def test_a_worker_killed_at_a_step_moves_the_money_once(
    payments: Payments, payment: Payment, number: int, point: str
) -> None:
    payments.system.when(point, number + 1, payments.system.kill)
    payment.begin(payments, before=0)
    job = payment.finish(payments)
    assert (job.state, job.runs_spent) == (JobState.DONE, 1)
    assert [step.state for step in payments.system.steps()] == [StepState.DONE, StepState.DONE]
    assert moved_once(payments, payment)
