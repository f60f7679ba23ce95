"""The closing transaction: a result is accepted by its attempt's id, whatever the fence says by then.

A paused worker's finished call is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, exists, select

from identity import audit
from identity.audit import AsWhom, Work
from identity.audit.tables import audit as audited
from identity.capability import issued
from identity.capability.model import Outcome
from identity.model import AccessPattern
from identity.sequence import next_number_and_time
from pipeline.ledger.intents import Intent, record
from pipeline.ledger.jobs import wake
from pipeline.ledger.moving import StepColumns, move_attempt, move_step
from pipeline.ledger.once import once_name
from pipeline.states import AttemptState, Purpose, StepState
from pipeline.tables import attempts, jobs

# Built once, as every statement of every step.
_HOLD = select(jobs.c.id).where(jobs.c.id == bindparam("job")).with_for_update()
_RECORDED = select(audited.c.id).where(audited.c.id == bindparam("id"))
_OTHERS_IN_DOUBT = select(attempts.c.id).where(
    attempts.c.step_id == bindparam("step"),
    attempts.c.id != bindparam("but"),
    attempts.c.purpose == Purpose.CALL,
    attempts.c.state == AttemptState.UNKNOWN,
)
_BEFORE_IN_DOUBT = _OTHERS_IN_DOUBT.where(attempts.c.opened < bindparam("before"))


@dataclass(frozen=True, kw_only=True)
class Closing:
    """What became of an attempt, and of its step with it."""

    attempt: str
    state: AttemptState
    step_state: StepState
    result: Mapping[str, Any] | None = None
    external_id: str | None = None
    status: int | None = None
    upstream_request_id: str | None = None
    error: str | None = None
    resolves: AttemptState | None = None  # what earlier unknown attempts of the step turn out to have been


class Closed(NamedTuple):
    """What the ledger made of a closing."""

    counts: bool  # False: the attempt was resolved otherwise before, or its step has ended: what is stored stays
    duplicate: bool = False  # an effect that had been ruled out: the call may have been made a second time since


def close_attempt(connection: Connection, intent: Intent, closing: Closing) -> Closed:
    """Commit an attempt's outcome, its step's and the audit row, and wake the jobs that wait for the step.

    An attempt that was resolved otherwise in the meantime keeps that; the late result is recorded beside it.
    """
    number, now = next_number_and_time(connection)
    row = move_attempt(
        connection,
        closing.attempt,
        closing.state,
        closed=number,
        closed_at=now,
        status=closing.status,
        upstream_request_id=closing.upstream_request_id,
        error=closing.error,
    )
    late = row is None
    if row is None:
        row = connection.execute(select(attempts).where(attempts.c.id == closing.attempt)).one()
    # A search is settled without its finding: that an effect is there is true however late. That none is, is not: the
    # call may have been made again.
    finding = row.purpose == Purpose.PROBE and closing.step_state is StepState.DONE
    if late:
        # What opens a call meanwhile sees this, or is seen; and whoever writes it again, as its commit was not seen.
        connection.execute(_HOLD, {"job": row.job_id})
    ruled_out = closing.state is AttemptState.EFFECT and row.state == AttemptState.NO_EFFECT
    duplicate = late and (ruled_out or (finding and _called_since(connection, row)))
    id = f"{closing.attempt}.late" if late else f"{closing.attempt}.{number}"
    if not late or connection.execute(_RECORDED, {"id": id}).first() is None:
        record_attempt(
            connection,
            row,
            "attempt.duplicate_effect" if duplicate else "attempt.late" if late else "attempt.closed",
            id=id,
            at=now,
            number=number,
            pattern=intent.decision.pattern,
            on_behalf_of=intent.job.user,
            action=intent.action,
            outcome=str(closing.state),
            reason=closing.error or intent.decision.reason,
            detail={
                "policy": intent.decision.policy,
                "purpose": row.purpose,
                "status": closing.status,
                "external_id": closing.external_id,
                "upstream_request_id": closing.upstream_request_id,
            },
        )
    if late and not finding:
        return Closed(counts=False, duplicate=duplicate)
    if intent.capability is not None:
        _close_capability(connection, intent, closing, now=now)
    if closing.resolves is not None:
        # What a search saw says nothing of a call that was made after it.
        before = row.opened if row.purpose == Purpose.PROBE else None
        _resolve_unknown(connection, intent, closing.resolves, before=before, number=number, now=now)
    step_state = closing.step_state
    if step_state is StepState.OPEN and calls_in_doubt(connection, row.step_id, but=row.id):
        step_state = StepState.UNKNOWN  # this one had no effect, and of another call that is not known
    moved = close_step(
        connection,
        row.step_id,
        step_state,
        now=now,
        result=closing.result,
        external_id=closing.external_id,
        error=closing.error,
    )
    if intent.once is not None and step_state is not StepState.UNKNOWN:
        wake(connection, once_name(row.tenant_id, intent.action, intent.once))
    return Closed(counts=moved or closing.step_state is StepState.OPEN, duplicate=duplicate)


def close_step(
    connection: Connection,
    step: str,
    state: StepState,
    *,
    now: datetime,
    result: Mapping[str, Any] | None = None,
    external_id: str | None = None,
    error: str | None = None,
) -> bool:
    """Move a step as its attempt ended. False: it ended before, and this says nothing better."""
    values: StepColumns = {"error": error}
    if result is not None:
        values |= {"result": dict(result), "external_id": external_id}
    if state is not StepState.OPEN:
        values["closed_at"] = now
    return move_step(connection, step, state, **values)


def record_attempt(
    connection: Connection,
    attempt: Row[Any],
    kind: str,
    *,
    id: str,
    at: datetime,
    outcome: str,
    reason: str,
    number: int | None = None,
    pattern: AccessPattern | None = None,
    on_behalf_of: str | None = None,
    action: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """The audit row of what became of *attempt*, a row of `attempts`."""
    audit.record(
        connection,
        kind,
        AsWhom(
            tenant=attempt.tenant_id,
            agent=attempt.agent_id,
            principal=attempt.principal_id,
            pattern=pattern,
            on_behalf_of=on_behalf_of,
            account=attempt.account_id or None,  # empty: a capability was nobody's account
            generation=attempt.generation or None,
        ),
        Work(job=attempt.job_id, step=attempt.step_id, attempt=attempt.id, action=action),
        id=id,
        at=at,
        number=number,
        outcome=outcome,
        reason=reason,
        detail=detail,
    )


def _close_capability(connection: Connection, intent: Intent, closing: Closing, *, now: datetime) -> None:
    """What is known to be done or not done needs its capability no more: whoever has it can do nothing with it."""
    if closing.step_state is StepState.DONE:
        issued.close(connection, intent.step, Outcome.EFFECT, now=now)
    elif closing.state is AttemptState.NO_EFFECT:
        issued.close(connection, intent.step, Outcome.NO_EFFECT, now=now)


def calls_in_doubt(connection: Connection, step: str, *, but: str, before: int | None = None) -> Sequence[str]:
    """The calls of a step whose outcome is not known, apart from the attempt *but*: all, or those opened *before*."""
    which = {"step": step, "but": but}
    if before is None:
        return connection.execute(_OTHERS_IN_DOUBT, which).scalars().all()
    return connection.execute(_BEFORE_IN_DOUBT, {**which, "before": before}).scalars().all()


def _called_since(connection: Connection, search: Row[Any]) -> bool:
    """Whether a call that was made after *search* had the effect, or may have had it."""
    later = exists().where(
        attempts.c.step_id == search.step_id,
        attempts.c.purpose == Purpose.CALL,
        attempts.c.state != AttemptState.NO_EFFECT,
        attempts.c.opened > search.opened,
    )
    return bool(connection.execute(select(later)).scalar_one())


def _resolve_unknown(
    connection: Connection, intent: Intent, to: AttemptState, *, before: int | None, number: int, now: datetime
) -> None:
    """Earlier attempts of the step whose outcome was not known turn out to have been *to*."""
    for attempt in calls_in_doubt(connection, intent.step, but=intent.attempt, before=before):
        if move_attempt(connection, attempt, to, closed=number, closed_at=now) is None:
            continue  # its own late answer was first
        record(
            connection,
            intent,
            "attempt.resolved",
            id=f"{attempt}.resolved",
            at=now,
            outcome=str(to),
            detail={"attempt": attempt},
        )
