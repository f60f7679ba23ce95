"""Rows of the ledger as the API tells of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil

from identity.model import Effect
from pipeline.accounts.health import Health
from pipeline.ledger.jobs import consenting
from pipeline.ledger.paging import Record
from pipeline.states import ENDED, FOR_A_PERSON, AttemptState, JobState, Purpose, StepState, Wait
from pipeline.tool_workflows import is_of_a_tool
from pipeline.workflow import Registry
from webhooks.api.job_models import ConsentOut, JobOut, JobWithSteps, Outcome, StepOut, ToolAnswer
from webhooks.api.models import (
    AccountOut,
    DeliveryOut,
    DeliveryWithJobs,
    Principal,
    RevocationOut,
    RevocationWithReceipt,
)

SOON, SELDOM = 1, 30  # seconds until it is worth looking again: people take their time


def job(row: Record) -> JobOut:
    return JobOut.model_validate({**row, "consent": _consent(row)})


def _consent(row: Record) -> ConsentOut | None:
    key = consenting(row["waits_for"]) if row["state"] == JobState.WAITING else None
    if key is None:
        return None
    user = key.principal if key.principal == row["user_id"] else None
    return ConsentOut(account=str(key), connection=key.connection, user=user, missing_scopes=row["lacks"] or [])


def job_with_steps(row: Record, workflows: Registry) -> JobWithSteps:
    outcome = _outcome(row, workflows) if is_of_a_tool(row["workflow"]) else None
    steps = [step(one) for one in row["steps"]]
    result = next((one.result for one in steps if one.state is StepState.DONE), None) if outcome else None
    told = {"consent": _consent(row), "outcome": outcome, "result": result, "steps": steps}
    return JobWithSteps.model_validate({**row, **told})


def step(row: Record) -> StepOut:
    nobody = row["principal"] is None or row["state"] == StepState.REFUSED
    as_whom = None if nobody else Principal(kind=row["kind"], name=row["principal"])
    return StepOut.model_validate({**row, "as_whom": as_whom, "attempts": len(row["attempts"])})


def tool_answer(row: Record, workflows: Registry) -> ToolAnswer:
    """What became of a tool's job; its one step tells why it failed."""
    told = job_with_steps(row, workflows)
    why = next((one.error for one in told.steps), None) or told.reason
    reason = None if told.result is not None else why
    return ToolAnswer(outcome=_outcome(row, workflows), result=told.result, reason=reason, job=told)


def _outcome(row: Record, workflows: Registry) -> Outcome:
    wait = Wait(row["wait"]) if row["wait"] else None
    match JobState(row["state"]):
        case JobState.DONE:
            return Outcome.DONE
        case JobState.CANCELLED | JobState.DEAD if any(_is_in_doubt(one, workflows) for one in row["steps"]):
            return Outcome.UNKNOWN
        case JobState.CANCELLED:
            return Outcome.CANCELLED
        case JobState.DEAD:
            by_step = {StepState.REFUSED: Outcome.REFUSED, StepState.FAILED: Outcome.FAILED}
            return next((by_step[one["state"]] for one in row["steps"] if one["state"] in by_step), Outcome.DEAD)
        case JobState.WAITING if wait is Wait.CONSENT:
            return Outcome.NEEDS_CONSENT
        case JobState.WAITING if wait in (Wait.APPROVAL, Wait.UNKNOWN):
            return Outcome.WAITING
        case _:
            return Outcome.PENDING


def look_again(row: Record, now: datetime) -> int | None:
    """In how many seconds it is worth looking at the job again; None: it has ended."""
    state, wait = JobState(row["state"]), Wait(row["wait"]) if row["wait"] else None
    if state in ENDED:
        return None
    if state is JobState.QUEUED or wait is Wait.TIME:  # not before it is due
        left: timedelta = row["due_at"] - now
        return max(SOON, min(ceil(left.total_seconds()), SELDOM))
    return SELDOM if wait in FOR_A_PERSON else SOON


def _is_in_doubt(step: Record, workflows: Registry) -> bool:
    """Whether a step that is not over may have been done. A search for its effect may have opened it again."""
    tool = workflows.tools.get(step["action"])
    if tool is not None and tool.facts.effect is Effect.READ:
        return False  # whatever became of its call, it changed nothing
    unsettled = {AttemptState.OPEN, AttemptState.UNKNOWN}
    calls = {one["state"] for one in step["attempts"] if one["purpose"] == Purpose.CALL}
    return step["state"] == StepState.UNKNOWN or (step["state"] == StepState.OPEN and not calls.isdisjoint(unsettled))


def account(row: Record, of: Health) -> AccountOut:
    told = {
        "principal": Principal(kind=row["kind"], name=row["principal"]),
        "usable": of.usable,
        "why": of.why,
        "scopes": row["scopes"] or (),
        "missing_scopes": of.missing_scopes,
    }
    return AccountOut.model_validate({**row, **told})


def delivery(row: Record) -> DeliveryOut:
    return DeliveryOut.model_validate(row)


def delivery_with_jobs(row: Record) -> DeliveryWithJobs:
    return DeliveryWithJobs.model_validate(row)


def revocation(row: Record) -> RevocationOut:
    return RevocationOut.model_validate({**row, "scope": row})


def revocation_with_receipt(row: Record) -> RevocationWithReceipt:
    return RevocationWithReceipt.model_validate({**row, "scope": row})
