"""The closing transaction: accepts a result by its attempt's id, even if the fence has moved since.

A call that a paused worker finished did happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, select

from identity import audit
from identity.audit import AsWhom, Work
from identity.audit.tables import audit as audited
from identity.capability import issued
from identity.capability.model import Outcome
from identity.sql.prepared import Prepared
from identity.sql.sequence import next_number_and_time
from pipeline.jobs.awaited import has_come, wake
from pipeline.jobs.calls import calls_in_doubt, may_have_acted
from pipeline.jobs.intents import Intent
from pipeline.jobs.moves import StepColumns, move_attempt, move_step
from pipeline.states import AttemptState, CountsAs, Purpose, StepState
from pipeline.steps.once import once_name
from pipeline.steps.writing import record_intent
from pipeline.tables import attempts, jobs, steps

# For late answers, which must exclude a concurrent opening of the same step.
_LOCK_JOB = Prepared(select(jobs.c.id).where(jobs.c.id == bindparam("job")).with_for_update())
_RECORDED = Prepared(select(audited.c.id).where(audited.c.id == bindparam("id")))


@dataclass(frozen=True, kw_only=True)
class Closing:
    """The outcome of an attempt, and the resulting state of its step."""

    attempt: str
    state: AttemptState
    step_state: StepState
    result: Mapping[str, Any] | None = None
    external_id: str | None = None
    status: int | None = None
    upstream_request_id: str | None = None
    error: str | None = None
    counts_as: CountsAs | None = None  # None: counts as one of the step's attempts
    ends_wait: bool = False  # the step's wait for its upstream is over: another begins afresh
    upstream_gone: bool = False  # the step failed because it waited for its upstream in vain
    resolves: AttemptState | None = None  # what earlier unknown attempts of the step turned out to be


class Closed(NamedTuple):
    """The ledger's verdict on a closing."""

    counts: bool  # False: the attempt was resolved differently, or its step has ended; stored values stay
    duplicate: bool = False  # the effect had been ruled out, so the call may have been repeated


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """The audit record to write for an answer, and the changes it may make."""

    attempt: Row[Any]
    kind: str  # of its audit record
    id: str  # of its audit record
    is_recorded: bool = False  # already stored, by a writer that did not see its commit
    moves_step: bool = True
    duplicate: bool = False


def close_attempt(connection: Connection, intent: Intent, closing: Closing) -> Closed:
    """Commit the outcome of an attempt and its step, with an audit row, and wake waiting jobs.

    An attempt that was resolved differently meanwhile stays as it is, and the late result is recorded beside it. A late
    result moves the step only if a search found the effect. Safe to repeat after an unconfirmed commit: an attempt
    closed by this very answer is left alone and counts as before.
    """
    number, now = next_number_and_time(connection)
    id = f"{closing.attempt}.closed.{closing.state}"
    closed = move_attempt(
        connection,
        closing.attempt,
        closing.state,
        closed=number,
        closed_at=now,
        status=closing.status,
        upstream_request_id=closing.upstream_request_id,
        error=closing.error,
        counts_as=closing.counts_as,
    )
    if closed is not None:
        if closing.ends_wait:
            has_come(connection, intent.job)
        answer = _Answer(attempt=closed, kind="attempt.closed", id=id)
    else:
        row = connection.execute(select(attempts).where(attempts.c.id == closing.attempt)).one()
        if _is_recorded(connection, id):
            return Closed(counts=_stands(connection, closing, row.step_id))
        answer = _late(connection, closing, row)
    attempt = answer.attempt
    if not answer.is_recorded:
        _record_answer(connection, intent, closing, answer, number=number, now=now)
    if not answer.moves_step:
        return Closed(counts=False, duplicate=answer.duplicate)
    if intent.capability is not None:
        _close_capability(connection, intent, closing, now=now)
    if closing.resolves is not None:
        # A search says nothing about calls made after it.
        before = attempt.opened if attempt.purpose == Purpose.PROBE else None
        resolve_unknown(connection, intent, closing.resolves, before=before, number=number, now=now)
    moved = _move_step_on(connection, intent, closing, attempt, now=now)
    return Closed(counts=moved or closing.step_state is StepState.OPEN, duplicate=answer.duplicate)


def close_unsent(connection: Connection, intent: Intent) -> None:
    """Close an attempt that was certainly not sent, if its opening was committed. Safe to repeat.

    The opening's commit may be unknown: its transaction may still be running, and holds the job until it ends.
    """
    _LOCK_JOB.run(connection, {"job": intent.job.id})
    if connection.execute(select(attempts.c.id).where(attempts.c.id == intent.attempt)).first() is not None:
        not_sent = Closing(
            attempt=intent.attempt,
            state=AttemptState.NO_EFFECT,
            step_state=StepState.OPEN,
            error="not sent",
            counts_as=CountsAs.UNSENT,
        )
        close_attempt(connection, intent, not_sent)


def _is_recorded(connection: Connection, id: str) -> bool:
    """True if this closing has written the audit record *id*, by a transaction whose commit it did not see.

    Only an attempt's own closing writes under such an id.
    """
    return _RECORDED.run(connection, {"id": id}).first() is not None


def _stands(connection: Connection, closing: Closing, step: str) -> bool:
    """True if the step is as an earlier write of this closing left it, or may stay open."""
    ended = connection.execute(select(steps.c.state, steps.c.result).where(steps.c.id == step)).one()
    stands = ended.state == closing.step_state and (closing.result is None or ended.result == closing.result)
    return stands or closing.step_state is StepState.OPEN


def _late(connection: Connection, closing: Closing, row: Row[Any]) -> _Answer:
    """Return how to treat an answer whose attempt, *row*, was resolved differently before it came."""
    # Serialise with a new opening of the step: either it has committed and we see its attempt, or it waits for this
    # lock and sees our result. A repeat of this write after an unconfirmed commit waits as well, and finds our record.
    _LOCK_JOB.run(connection, {"job": row.job_id})
    # A late search that found the effect is still right. One that found none is not: the call may have been repeated
    # since.
    finding = row.purpose == Purpose.PROBE and closing.step_state is StepState.DONE
    ruled_out = closing.state is AttemptState.EFFECT and row.state == AttemptState.NO_EFFECT
    duplicate = ruled_out or (finding and may_have_acted(connection, row.step_id, since=row.opened))
    id = f"{closing.attempt}.late"
    return _Answer(
        attempt=row,
        kind="attempt.duplicate_effect" if duplicate else "attempt.late",
        id=id,
        is_recorded=_is_recorded(connection, id),
        moves_step=finding,
        duplicate=duplicate,
    )


def _record_answer(
    connection: Connection, intent: Intent, closing: Closing, answer: _Answer, *, number: int, now: datetime
) -> None:
    audit.record(
        connection,
        answer.kind,
        whom_of(answer.attempt, intent),
        work_of(answer.attempt, intent.action),
        id=answer.id,
        at=now,
        number=number,
        outcome=str(closing.state),
        reason=closing.error or intent.decision.reason,
        detail={
            "policy": intent.decision.policy,
            "purpose": answer.attempt.purpose,
            "status": closing.status,
            "external_id": closing.external_id,
            "upstream_request_id": closing.upstream_request_id,
        },
    )


def _move_step_on(
    connection: Connection, intent: Intent, closing: Closing, attempt: Row[Any], *, now: datetime
) -> bool:
    """Move the step according to its attempt, and wake jobs that wait for it.

    False: it had ended, and stays as it is.
    """
    state = closing.step_state
    if state is StepState.OPEN and calls_in_doubt(connection, attempt.step_id, but=attempt.id):
        state = StepState.UNKNOWN  # this attempt had no effect, but the outcome of another call is unknown
    moved = close_step(
        connection,
        attempt.step_id,
        state,
        now=now,
        result=closing.result,
        external_id=closing.external_id,
        error=closing.error,
        upstream_gone=closing.upstream_gone,
    )
    if intent.once is not None and state is not StepState.UNKNOWN:
        wake(connection, once_name(attempt.tenant_id, intent.action, intent.once))
    return moved


def close_step(
    connection: Connection,
    step: str,
    state: StepState,
    *,
    now: datetime,
    result: Mapping[str, Any] | None = None,
    external_id: str | None = None,
    error: str | None = None,
    upstream_gone: bool = False,
) -> bool:
    """Move a step according to its attempt. False: it had ended before, and stays as it is."""
    values: StepColumns = {"error": error, "upstream_gone": upstream_gone or None}
    if result is not None:
        values |= {"result": dict(result), "external_id": external_id}
    if state is not StepState.OPEN:
        values["closed_at"] = now
    return move_step(connection, step, state, **values)


def whom_of(attempt: Row[Any], intent: Intent | None = None) -> AsWhom:
    """Return the parties of an audit record about *attempt*, a row of `attempts`."""
    return AsWhom(
        tenant=attempt.tenant_id,
        agent=attempt.agent_id,
        principal=attempt.principal_id,
        pattern=intent.decision.pattern if intent else None,
        on_behalf_of=intent.job.user if intent else None,
        account=attempt.account_id or None,  # empty: a capability, which belongs to no account
        generation=attempt.generation or None,
    )


def work_of(attempt: Row[Any], action: str | None = None) -> Work:
    """Return the work of an audit record about *attempt*, a row of `attempts`."""
    return Work(job=attempt.job_id, step=attempt.step_id, attempt=attempt.id, action=action)


def _close_capability(connection: Connection, intent: Intent, closing: Closing, *, now: datetime) -> None:
    """Close the step's capability once the outcome is known, so that nobody can use it any more."""
    if closing.step_state is StepState.DONE:
        issued.close(connection, intent.step, Outcome.EFFECT, now=now)
    elif closing.state is AttemptState.NO_EFFECT:
        issued.close(connection, intent.step, Outcome.NO_EFFECT, now=now)


def resolve_unknown(
    connection: Connection, intent: Intent, to: AttemptState, *, number: int, now: datetime, before: int | None = None
) -> None:
    """Resolve earlier attempts of the step with an unknown outcome to *to*: all, or those opened *before*."""
    for attempt in calls_in_doubt(connection, intent.step, but=intent.attempt, before=before):
        if move_attempt(connection, attempt, to, closed=number, closed_at=now) is None:
            continue  # its own late answer came first
        record_intent(
            connection,
            intent,
            "attempt.resolved",
            id=f"{attempt}.resolved",
            at=now,
            outcome=str(to),
            detail={"attempt": attempt},
        )
