"""Conversions of ledger rows into the API's models."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil
from typing import Any

from identity.model import Effect
from pipeline.accounts.health import Health
from pipeline.authoring.registry import Registry
from pipeline.authoring.tool_workflows import is_of_a_tool
from pipeline.jobs.awaited import consenting
from pipeline.ledger.paging import Record
from pipeline.states import ENDED, FOR_A_PERSON, AttemptState, JobState, Purpose, StepState, Wait
from webhooks.api.job_models import ConsentOut, JobOut, JobWithSteps, Outcome, StepOut, ToolAnswer
from webhooks.api.models import (
    AccountOut,
    Principal,
    RevocationOut,
    RevocationWithReceipt,
)

SOON, SELDOM = 1, 30  # seconds until it is worth looking again; people take their time


def job(row: Record) -> JobOut:
    return JobOut.model_validate({**row, **_waits(row)})


def _waits(row: Record) -> dict[str, Any]:
    """Return the consent a job waits for, and when it is next tried, as far as that is known."""
    later = row["due_at"] > row["created_at"] and _is_due_later(row)
    return {"consent": _consent(row), "next_try_at": row["due_at"] if later else None}


def _is_due_later(row: Record) -> bool:
    state, wait = JobState(row["state"]), row["wait"]
    return state is JobState.QUEUED or wait in (Wait.TIME, Wait.UPSTREAM)


def _consent(row: Record) -> ConsentOut | None:
    key = consenting(row["waits_for"]) if row["state"] == JobState.WAITING else None
    if key is None:
        return None
    user = key.principal if key.principal == row["user_id"] else None
    return ConsentOut(account=str(key), connection=key.connection, user=user, missing_scopes=row["lacks"] or [])


def job_with_steps(row: Record, workflows: Registry) -> JobWithSteps:
    told: dict[str, Any] = {**row, **_waits(row), "steps": [step(one) for one in row["steps"]]}
    if not is_of_a_tool(row["workflow"]):
        return JobWithSteps.model_validate({**told, "outcome": None, "result": None})
    result = next((one["result"] for one in row["steps"] if one["state"] == StepState.DONE), None)
    told |= {
        "outcome": _outcome(row, workflows),
        "result": result,
        "reason": None if result is not None else _reason(row),
        "steps": [one.model_copy(update={"result": None}) for one in told["steps"]],  # shown once, as the job's
    }
    return JobWithSteps.model_validate(told)


def _reason(row: Record) -> str | None:
    """Return why a tool's job has no result, or none yet."""
    of_job: str | None = row["reason"]
    step = next(iter(row["steps"]), None)
    if step is None:
        return of_job
    of_step: str | None = step["error"]
    # the job's reason says the same, with names of our classes
    if step["state"] in (StepState.FAILED, StepState.REFUSED):
        return of_step or str(step["reason"])
    return of_job if of_step is None or of_step in (of_job or "") else "; ".join(filter(None, (of_job, of_step)))


def step(row: Record) -> StepOut:
    nobody = row["principal"] is None or row["state"] == StepState.REFUSED
    as_whom = None if nobody else Principal(kind=row["kind"], name=row["principal"])
    return StepOut.model_validate({**row, "as_whom": as_whom, "attempts": len(row["attempts"])})


def tool_answer(row: Record, workflows: Registry) -> ToolAnswer:
    """Return the outcome of a tool's job; the result stands beside the job rather than in it."""
    told = job_with_steps(row, workflows)
    job = told.model_copy(update={"result": None})
    return ToolAnswer(outcome=_outcome(row, workflows), result=told.result, reason=told.reason, job=job)


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
    """Return in how many seconds it is worth looking at the job again; None: it has ended."""
    if row["state"] in ENDED:
        return None
    if _is_due_later(row):
        left: timedelta = row["due_at"] - now
        return max(SOON, min(ceil(left.total_seconds()), SELDOM))
    return SELDOM if row["wait"] in FOR_A_PERSON else SOON


def _is_in_doubt(step: Record, workflows: Registry) -> bool:
    """True if a step that is not over may have been done. A search for its effect may have reopened it."""
    tool = workflows.actions.get(step["action"])
    if tool is not None and tool.facts.effect is Effect.READ:
        return False  # its call changed nothing, whatever the outcome
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


def revocation(row: Record) -> RevocationOut:
    return RevocationOut.model_validate({**row, "scope": row})


def revocation_with_receipt(row: Record) -> RevocationWithReceipt:
    return RevocationWithReceipt.model_validate({**row, "scope": row})
