"""An operator's statement about a call whose outcome could not be looked up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, Text, cast, false, or_, select

from identity import audit
from identity.audit import Act
from identity.capability import issued
from identity.capability.model import Outcome
from identity.errors import BadInput
from identity.sql.columns import database_now
from identity.sql.sequence import next_number
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.fields import misfitting
from pipeline.jobs.awaited import wake
from pipeline.jobs.moves import move_attempt, move_job
from pipeline.ledger.forgotten import no_job
from pipeline.revocation.tables import revocations
from pipeline.states import ENDED, AttemptState, JobState, Purpose, StepState, Wait
from pipeline.steps.closings import close_step, whom_of, work_of
from pipeline.steps.once import once_name
from pipeline.tables import attempts, jobs, steps


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A person's finding about the calls of one step."""

    calls: Collection[str]  # the attempts that they were asked about
    effect: bool
    result: Mapping[str, Any] | None = None  # of the step, if the call had its effect; must fit the action's type


def resolve_by_hand(
    connection: Connection, job: str, found_out: Resolution, act: Act, workflows: Registry
) -> list[str]:
    """Close calls of unknown outcome as a person says, and requeue the job unless another call is in doubt.

    A job that has ended stays ended. If further attempts of the step are unknown by now, none is closed.

    Returns the revocations whose receipts call these attempts unknown; `advance` then issues better ones. Raises
    BadInput.
    """
    row = connection.execute(select(jobs).where(jobs.c.id == job).with_for_update()).one_or_none()
    if row is None:
        raise no_job(connection, job)
    columns = (attempts, steps.c.position, steps.c.action, steps.c.once_key, steps.c.state.label("step_state"))
    in_doubt = select(*columns).join(steps, steps.c.id == attempts.c.step_id).where(steps.c.job_id == job)
    is_call = (attempts.c.purpose == Purpose.CALL) & (attempts.c.state == AttemptState.UNKNOWN)
    found = connection.execute(in_doubt.where(is_call).order_by(steps.c.position, attempts.c.number)).all()
    waits = row.state == JobState.WAITING and row.wait == Wait.UNKNOWN
    if not found or not (waits or row.state in ENDED):
        raise BadInput(f"job {job} does not wait for anyone's word about a call: see `aswhom jobs show {job}`")
    said_of = {attempt.step_id for attempt in found if attempt.id in found_out.calls}
    closing = [attempt for attempt in found if attempt.step_id in said_of]
    if not closing or set(found_out.calls) != {attempt.id for attempt in closing}:
        raise BadInput(
            f"job {job} asks about another call by now than the one you were shown, or about more than you named: "
            f"{_by_step(found)}. Look at the job again, and at the provider for each; say it of one step at a time"
        )
    if len(said_of) > 1:
        raise BadInput(f"one word is about the calls of one step, and you named those of more: {_by_step(found)}")
    for attempt in closing:
        returned = None
        if found_out.effect:
            returned = _returned(workflows.get(row.workflow), attempt.action, found_out.result)
        _close(connection, attempt, returned, said=audit.said_by(act.by, act.why), now=act.now)
    # An unknown attempt of a step that has ended, such as a refused read, does not hold the job.
    if waits and not any(attempt.step_state == StepState.UNKNOWN for attempt in found if attempt not in closing):
        reason = f"resolved by {act.by}"
        move_job(connection, job, JobState.QUEUED, source=JobState.WAITING, due_at=database_now(), reason=reason)
    return _receipts_of(connection, {attempt.id for attempt in closing})


def _by_step(calls: Sequence[Row[Any]]) -> str:
    """Name calls step by step, as a person must name them."""
    steps = groupby(calls, lambda call: (call.position, call.action))
    return "; ".join(
        f"step {position}, {action}: {', '.join(call.id for call in its)}" for (position, action), its in steps
    )


def _receipts_of(connection: Connection, calls: set[str]) -> list[str]:
    """Return the revocations whose receipt lists one of these calls and has open ends."""
    # Filter in the database first: a receipt for very many credentials is long, and seldom matches.
    names = (cast(revocations.c.receipt, Text).contains(call, autoescape=True) for call in calls)
    open_ended = select(revocations.c.id, revocations.c.receipt).where(
        revocations.c.open_ends > 0, or_(false(), *names)
    )
    return [
        row.id
        for row in connection.execute(open_ended.order_by(revocations.c.number))
        if calls & {call["attempt"] for call in row.receipt["in_flight"]}
    ]


def _returned(workflow: Workflow, action: str, result: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return *result* as the action would have returned it. Raises BadInput, which names missing fields."""
    declared = next((one for one in workflow.uses if one.action_name() == action), None)
    if declared is None:
        raise BadInput(
            f"{workflow.name} does not use {action} any more, so what it returned cannot be held against it: "
            "resolve the job with the code that it was made for"
        )
    try:
        return declared.result.model_validate(result or {}).model_dump(mode="json")
    except ValidationError as error:
        lacking = misfitting(error, most=None)
        raise BadInput(
            f"{action} returns more than that: give --result with {lacking}, as the provider shows it"
        ) from error


def _close(
    connection: Connection, attempt: Row[Any], returned: Mapping[str, Any] | None, *, said: str, now: datetime
) -> None:
    to = AttemptState.NO_EFFECT if returned is None else AttemptState.EFFECT
    number = next_number(connection)
    if move_attempt(connection, attempt.id, to, closed=number, closed_at=now) is None:
        return  # its late answer came first and is better than a person's word
    step_state = StepState.OPEN if returned is None else StepState.DONE
    close_step(connection, attempt.step_id, step_state, now=now, result=returned)
    issued.close(connection, attempt.step_id, Outcome.NO_EFFECT if returned is None else Outcome.EFFECT, now=now)
    audit.record(
        connection,
        "attempt.resolved",
        whom_of(attempt),
        work_of(attempt, attempt.action),
        id=f"{attempt.id}.{number}",
        at=now,
        number=number,
        outcome=str(to),
        reason=f"resolved {said}",
    )
    if attempt.once_key is not None:
        wake(connection, once_name(attempt.tenant_id, attempt.action, attempt.once_key))
