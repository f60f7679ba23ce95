"""Steps in the ledger: the opening transaction, the closing one, and what an attempt without an answer becomes.

The laws (DESIGN §5.1, §6):
- an attempt is sent only after its intent is committed, under the locks of its five scopes and by the rule;
- a result is accepted by its attempt's id, whatever the fence says by then: a paused worker's finished call is the truth;
- a once key belongs to a step until every attempt of that step is known to have had no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, exists, func, insert, select, update

from identity import audit, leases
from identity.accounts import pending_account
from identity.columns import database_in, database_now
from identity.model import Leased, LeaseRequest, NeedsConsent, NeedsRefresh, RuledOut
from identity.policy import Decision
from identity.sequence import lock_shared, next_number
from identity.upsert import insert_or
from pipeline.ledger.jobs import ClaimedJob, move_job, park, stop, wake
from pipeline.states import ATTEMPT_MOVES, STEP_MOVES, AttemptState, JobState, StepState, Wait
from pipeline.tables import attempts, jobs, once_keys, steps

CONSENT_EXPIRES = timedelta(days=14)
ONCE_EXPIRES = timedelta(days=14)


@dataclass(frozen=True, kw_only=True)
class Intent:
    """Everything an opening needs, made before its transaction, which may run more than once."""

    step: str
    attempt: str
    job: ClaimedJob
    position: int
    action: str
    occurrence: int
    named: str
    decision: Decision
    principal: str
    provider: str
    connection: str
    new_account: str  # id of the pending account, should there be none
    request_hash: str
    parameters: Mapping[str, Any]
    once: str | None
    purpose: str  # call or probe
    number: int  # of the attempt within its step, from 1
    lease: LeaseRequest
    repeats_unknown: bool  # an unknown earlier attempt does not forbid this one: a probe, or a mode that may repeat
    send_within: timedelta
    deadline: timedelta  # of the call, from its start


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The intent is committed: the call may be sent until `send_within` has passed since before the commit."""

    lease: Leased


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """Another job's step did this once and for all; its result is ours."""

    result: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The run ends here; the job's state was moved in this transaction."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class OnceMismatch:
    """The once key was used with other parameters."""

    owner: str


OpenOutcome = Opened | Adopted | Ended | OnceMismatch | NeedsRefresh


def clock(connection: Connection) -> datetime:
    """The database's clock, which `settled_by` is compared with."""
    now: datetime = connection.execute(select(database_now())).scalar_one()
    return now


def attempt_state(connection: Connection, attempt: str) -> str | None:
    """The state of an attempt; None: its intent was not committed."""
    state: str | None = connection.execute(
        select(attempts.c.state).where(attempts.c.id == attempt)
    ).scalar_one_or_none()
    return state


def sleep(
    connection: Connection,
    job: ClaimedJob,
    *,
    step: str,
    position: int,
    occurrence: int,
    request_hash: str,
    duration: timedelta,
) -> bool:
    """Whether a sleep step is over; if not, park the job until it is."""
    now = clock(connection)
    row = {
        "id": step,
        "job_id": job.id,
        "position": position,
        "action": "run.sleep",
        "occurrence": occurrence,
        "named": "policy",
        "reason": "the workflow sleeps",
        "request_hash": request_hash,
        "parameters": {"seconds": duration.total_seconds()},
        "state": StepState.OPEN,
        "opened_at": now,
    }
    connection.execute(
        insert_or(connection, steps).values(row).on_conflict_do_nothing(index_elements=["job_id", "position"])
    )
    began: datetime = connection.execute(select(steps.c.opened_at).where(steps.c.id == step)).scalar_one()
    left = began + duration - now
    if left <= timedelta():
        return close_step(connection, step, StepState.DONE, now=now, result={})
    park(connection, job, Wait.TIME, waits_for=None, due_in=left, expires_in=left, reason="the workflow sleeps")
    return False


def load(connection: Connection, job: str) -> dict[int, Row[Any]]:
    """All steps of a job by position, read once a run."""
    rows = connection.execute(select(steps).where(steps.c.job_id == job)).all()
    return {row.position: row for row in rows}


def attempts_of(connection: Connection, step: str) -> list[Row[Any]]:
    """The attempts of a step, oldest first."""
    return list(
        connection.execute(select(attempts).where(attempts.c.step_id == step).order_by(attempts.c.number)).all()
    )


def open_attempt(connection: Connection, intent: Intent) -> OpenOutcome:
    """The opening transaction: locks, fence, the rule, the lease, the once key, then the intent with its number."""
    job = intent.job
    lock_shared(connection, intent.lease.scope_list)
    # Extends the claim past the call, in the UPDATE that checks the fence: no heartbeat thread.
    held = connection.execute(
        update(jobs)
        .where(jobs.c.id == job.id, jobs.c.fence == job.fence, jobs.c.state == JobState.RUNNING)
        .values(claimed_until=database_in(intent.send_within + intent.deadline + timedelta(seconds=5)))
        .returning(database_now().label("now"))
    ).one_or_none()
    if held is None:
        return Ended(reason="stopped" if stop(connection, job) else "another worker has the job")
    now: datetime = held.now

    outcome = leases.examine(connection, intent.lease)
    match outcome:
        case RuledOut():
            return _ruled_out(connection, intent, outcome, now)
        case NeedsConsent():
            return _await_consent(connection, intent, outcome, now)
        case NeedsRefresh():
            return outcome
    if intent.number > 1 and _overtaken(connection, intent):
        move_job(
            connection,
            job.id,
            JobState.QUEUED,
            fence=job.fence,
            due_at=now,
            reason="an earlier attempt was answered late",
        )
        return Ended(reason="an earlier attempt was answered late")
    if intent.once is not None and intent.purpose == "call":
        settled = _take_once(connection, intent, now)
        if settled is not None:
            return settled
    number = next_number(connection)
    _write_step(connection, intent, StepState.OPEN, now)
    connection.execute(
        insert(attempts).values(
            id=intent.attempt,
            step_id=intent.step,
            job_id=job.id,
            number=intent.number,
            purpose=intent.purpose,
            state=AttemptState.OPEN,
            opened=number,
            tenant_id=job.tenant,
            connection_id=intent.connection,
            agent_id=job.agent,
            principal_id=intent.principal,
            account_id=outcome.account,
            generation=outcome.generation,
            fence=job.fence,
            opened_at=now,
            send_before=now + intent.send_within,
            settled_by=now + intent.send_within + intent.deadline,
        )
    )
    _record(
        connection,
        intent,
        "attempt.opened",
        id=f"{intent.attempt}.opened",
        at=now,
        number=number,
        outcome="open",
        lease=outcome,
    )
    return Opened(lease=outcome)


def _overtaken(connection: Connection, intent: Intent) -> bool:
    """Whether an earlier attempt has, or may yet have, the effect that this one is for."""
    settled = [AttemptState.NO_EFFECT, *([AttemptState.UNKNOWN] if intent.repeats_unknown else [])]
    other = exists().where(
        attempts.c.step_id == intent.step, attempts.c.purpose == "call", attempts.c.state.not_in(settled)
    )
    return bool(connection.execute(select(other)).scalar_one())


def _write_step(connection: Connection, intent: Intent, state: StepState, now: datetime, **values: Any) -> None:
    """Insert the step, or write the newest decision of one that opens again."""
    row = {
        "id": intent.step,
        "job_id": intent.job.id,
        "position": intent.position,
        "action": intent.action,
        "occurrence": intent.occurrence,
        "named": intent.named,
        "principal_id": intent.principal,
        "pattern": intent.decision.pattern,
        "reason": intent.decision.reason,
        "request_hash": intent.request_hash,
        "parameters": dict(intent.parameters),
        "once_key": intent.once,
        "state": state,
        "opened_at": now,
        **values,
    }
    again = {key: row[key] for key in ("principal_id", "pattern", "reason", "state", *values)}
    connection.execute(
        insert_or(connection, steps)
        .values(row)
        .on_conflict_do_update(index_elements=["job_id", "position"], set_=again)
    )


def _record(
    connection: Connection,
    intent: Intent,
    kind: str,
    *,
    id: str,
    at: datetime,
    outcome: str,
    number: int | None = None,
    lease: Leased | None = None,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    audit.record(
        connection,
        id=id,
        at=at,
        number=number,
        kind=kind,
        tenant=intent.job.tenant,
        agent=intent.job.agent,
        principal=intent.principal,
        pattern=intent.decision.pattern,
        on_behalf_of=intent.job.user,
        account=lease.account if lease else None,
        generation=lease.generation if lease else None,
        job=intent.job.id,
        step=intent.step,
        attempt=intent.attempt if lease else None,
        action=intent.action,
        outcome=outcome,
        reason=reason or intent.decision.reason,
        detail=dict(detail or {}),
    )


def _ruled_out(connection: Connection, intent: Intent, ruled: RuledOut, now: datetime) -> Ended:
    """The rule refused the step: it ends the run like a stop."""
    _write_step(connection, intent, StepState.REFUSED, now, error=ruled.reason, closed_at=now)
    _record(
        connection,
        intent,
        "step.refused",
        id=f"{intent.attempt}.refused",
        at=now,
        outcome="refused",
        reason=ruled.reason,
    )
    move_job(connection, intent.job.id, JobState.CANCELLED, fence=intent.job.fence, reason=ruled.reason)
    return Ended(reason=ruled.reason)


def _await_consent(connection: Connection, intent: Intent, needs: NeedsConsent, now: datetime) -> Ended:
    """Park at the step that needs a person; the callback's commit takes the account's lock and wakes the job."""
    pending_account(connection, intent.lease.account_key, id=intent.new_account, provider=intent.provider, now=now)
    missing = f", scopes missing: {', '.join(needs.missing_scopes)}" if needs.missing_scopes else ""
    reason = f"{intent.action} needs the consent of {intent.principal}: the account is {needs.state}{missing}"
    key = f"account:{intent.lease.account_key}"
    park(
        connection,
        intent.job,
        Wait.CONSENT,
        waits_for=key,
        due_in=CONSENT_EXPIRES,
        expires_in=CONSENT_EXPIRES,
        reason=reason,
    )
    _record(connection, intent, "job.parked", id=f"{intent.attempt}.parked", at=now, outcome="waiting", reason=reason)
    return Ended(reason=reason)


def _once_name(tenant: str, action: str, key: str) -> str:
    return f"once:{tenant}:{action}:{key}"


def _take_once(connection: Connection, intent: Intent, now: datetime) -> OpenOutcome | None:
    """Own the once key (None), adopt its owner's result, or wait for the owner."""
    tenant, action, key = intent.job.tenant, intent.action, intent.once
    assert key is not None  # noqa: S101 - the caller checked; for the type checker
    which = (once_keys.c.tenant_id == tenant) & (once_keys.c.action == action) & (once_keys.c.key == key)
    mine = insert_or(connection, once_keys).values(
        tenant_id=tenant,
        action=action,
        key=key,
        request_hash=intent.request_hash,
        step_id=intent.step,
        job_id=intent.job.id,
        taken_at=now,
    )
    if connection.execute(mine.on_conflict_do_nothing()).rowcount == 1:
        return None
    held = connection.execute(select(once_keys).where(which).with_for_update()).one()
    if held.step_id == intent.step:
        return None
    if held.request_hash != intent.request_hash:
        return OnceMismatch(owner=held.job_id)
    owner = connection.execute(select(steps).where(steps.c.id == held.step_id)).one_or_none()
    if owner is not None and owner.state == StepState.DONE:
        _write_step(
            connection,
            intent,
            StepState.DONE,
            now,
            result=owner.result,
            external_id=owner.external_id,
            adopted_from=owner.id,
            closed_at=now,
        )
        _record(
            connection,
            intent,
            "step.adopted",
            id=f"{intent.attempt}.adopted",
            at=now,
            outcome="done",
            reason=f"done once by job {held.job_id}",
            detail={"adopted_from": owner.id},
        )
        return Adopted(result=owner.result)
    if _certainly_without_effect(connection, held.step_id):
        # Compare-and-set: of two waiters one takes it over.
        taken = connection.execute(
            update(once_keys)
            .where(which, once_keys.c.step_id == held.step_id)
            .values(step_id=intent.step, job_id=intent.job.id, taken_at=now)
        )
        if taken.rowcount == 1:
            return None
    settles = connection.execute(
        select(func.max(attempts.c.settled_by)).where(attempts.c.step_id == held.step_id)
    ).scalar_one()
    wait = max(settles - now, timedelta(seconds=1)) if settles else timedelta(seconds=1)
    reason = f"job {held.job_id} is doing this ({key})"
    waits_for = _once_name(tenant, action, key)
    park(connection, intent.job, Wait.ONCE, waits_for=waits_for, due_in=wait, expires_in=ONCE_EXPIRES, reason=reason)
    return Ended(reason=reason)


def _certainly_without_effect(connection: Connection, step: str) -> bool:
    other = exists().where(
        attempts.c.step_id == step, attempts.c.purpose == "call", attempts.c.state != AttemptState.NO_EFFECT
    )
    return not connection.execute(select(other)).scalar_one()


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


def close_attempt(connection: Connection, intent: Intent, closing: Closing) -> list[str]:
    """Commit an attempt's outcome, its step's and the audit row; return the jobs this wakes.

    An attempt that was resolved otherwise in the meantime keeps that; the late result is recorded beside it.
    """
    number = next_number(connection)
    now: datetime = connection.execute(select(database_now())).scalar_one()
    moved = connection.execute(
        update(attempts)
        .where(attempts.c.id == closing.attempt, attempts.c.state.in_(ATTEMPT_MOVES.sources(closing.state)))
        .values(
            state=closing.state,
            closed=number,
            closed_at=now,
            status=closing.status,
            upstream_request_id=closing.upstream_request_id,
            error=closing.error,
        )
    )
    row = connection.execute(select(attempts).where(attempts.c.id == closing.attempt)).one()
    late = moved.rowcount == 0
    duplicate = late and closing.state is AttemptState.EFFECT and row.state == AttemptState.NO_EFFECT
    audit.record(
        connection,
        id=f"{closing.attempt}.closed" if not late else f"{closing.attempt}.late",
        at=now,
        number=number,
        kind="attempt.duplicate_effect" if duplicate else "attempt.late" if late else "attempt.closed",
        tenant=row.tenant_id,
        agent=row.agent_id,
        principal=row.principal_id,
        pattern=intent.decision.pattern,
        on_behalf_of=intent.job.user,
        account=row.account_id,
        generation=row.generation,
        job=row.job_id,
        step=row.step_id,
        attempt=row.id,
        action=intent.action,
        outcome=str(closing.state),
        reason=closing.error or intent.decision.reason,
        detail={
            "purpose": row.purpose,
            "status": closing.status,
            "external_id": closing.external_id,
            "upstream_request_id": closing.upstream_request_id,
        },
    )
    if late:
        return []
    if closing.resolves is not None:
        _resolve_unknown(connection, intent, closing.resolves, number=number, now=now)
    if closing.step_state is not StepState.OPEN or intent.purpose == "probe":
        close_step(
            connection,
            row.step_id,
            closing.step_state,
            now=now,
            result=closing.result,
            external_id=closing.external_id,
            error=closing.error,
        )
    if intent.once is not None and closing.step_state is not StepState.UNKNOWN:
        return wake(connection, _once_name(row.tenant_id, intent.action, intent.once))
    return []


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
    """Move a step: the one mover."""
    values: dict[str, Any] = {"state": state, "error": error}
    if result is not None:
        values |= {"result": dict(result), "external_id": external_id}
    if state is not StepState.OPEN:
        values["closed_at"] = now
    condition = (steps.c.id == step) & steps.c.state.in_(STEP_MOVES.sources(state))
    return connection.execute(update(steps).where(condition).values(**values)).rowcount == 1


def refuse(connection: Connection, intent: Intent, *, reason: str, now: datetime) -> None:
    """A step that policy refuses: recorded, never sent."""
    _write_step(connection, intent, StepState.REFUSED, now, error=reason, closed_at=now)
    _record(
        connection, intent, "step.refused", id=f"{intent.attempt}.refused", at=now, outcome="refused", reason=reason
    )


def _resolve_unknown(connection: Connection, intent: Intent, to: AttemptState, *, number: int, now: datetime) -> None:
    """Earlier attempts of the step whose outcome was not known turn out to have been *to*."""
    resolved = connection.execute(
        update(attempts)
        .where(
            attempts.c.step_id == intent.step,
            attempts.c.id != intent.attempt,
            attempts.c.purpose == "call",
            attempts.c.state == AttemptState.UNKNOWN,
        )
        .values(state=to, closed=number, closed_at=now)
        .returning(attempts.c.id)
    )
    for attempt in resolved.scalars().all():
        _record(
            connection,
            intent,
            "attempt.resolved",
            id=f"{attempt}.resolved",
            at=now,
            outcome=str(to),
            detail={"attempt": attempt},
        )


def settle(connection: Connection, attempt: Row[Any], *, now: datetime) -> bool:
    """An open attempt whose deadline has passed without an answer: unknown from now on. False: it was answered."""
    moved = connection.execute(
        update(attempts)
        .where(attempts.c.id == attempt.id, attempts.c.state == AttemptState.OPEN)
        .values(state=AttemptState.UNKNOWN, error="no answer was recorded before the deadline")
    )
    if moved.rowcount == 0:
        return False
    audit.record(
        connection,
        id=f"{attempt.id}.unknown",
        at=now,
        kind="attempt.unknown",
        tenant=attempt.tenant_id,
        agent=attempt.agent_id,
        principal=attempt.principal_id,
        account=attempt.account_id,
        generation=attempt.generation,
        job=attempt.job_id,
        step=attempt.step_id,
        attempt=attempt.id,
        outcome="unknown",
        reason="no answer was recorded before the deadline",
    )
    return True


def overdue(connection: Connection, *, limit: int) -> list[Row[Any]]:
    """Open attempts whose deadline has passed, whatever their job's state."""
    late = (attempts.c.state == AttemptState.OPEN) & (attempts.c.settled_by < database_now())
    statement = select(attempts).where(late).limit(limit)
    return list(connection.execute(statement).all())


def resolve_by_hand(
    connection: Connection, job: str, *, effect: bool, result: Mapping[str, Any], by: str, now: datetime
) -> None:
    """An operator says what became of a job's unknown step, and with which *result*; the job goes on."""
    rows = connection.execute(
        select(attempts).where(attempts.c.job_id == job, attempts.c.state == AttemptState.UNKNOWN)
    ).all()
    to = AttemptState.EFFECT if effect else AttemptState.NO_EFFECT
    for row in rows:
        connection.execute(
            update(attempts)
            .where(attempts.c.id == row.id)
            .values(state=to, closed=next_number(connection), closed_at=now)
        )
        close_step(
            connection,
            row.step_id,
            StepState.DONE if effect else StepState.OPEN,
            now=now,
            result=result if effect else None,
        )
        audit.record(
            connection,
            id=f"{row.id}.by_hand",
            at=now,
            kind="attempt.resolved",
            tenant=row.tenant_id,
            agent=row.agent_id,
            principal=row.principal_id,
            account=row.account_id,
            generation=row.generation,
            job=job,
            step=row.step_id,
            attempt=row.id,
            outcome=str(to),
            reason=f"resolved by {by}",
        )
    move_job(
        connection, job, JobState.QUEUED, source=JobState.WAITING, due_at=database_now(), reason=f"resolved by {by}"
    )
