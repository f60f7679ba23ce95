"""Jobs in the ledger: claiming a job, and ending its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    bindparam,
    case,
    func,
    null,
    select,
    type_coerce,
    update,
)

from identity.hold import IS_HELD
from identity.model import AccessPattern
from identity.sql.columns import Instant, database_in, database_in_microseconds, database_now, microseconds
from identity.sql.prepared import Prepared
from pipeline.jobs.moves import WAITS_ON, JobColumns, move_job, moving_job
from pipeline.ledger.clock import NOW
from pipeline.states import JobState, Wait
from pipeline.tables import IS_CLAIMED, IS_QUEUED, jobs, pinned_configuration
from pipeline.throttle.limits import LONGEST_WAIT


@dataclass(frozen=True, kw_only=True)
class ClaimedJob:
    """A job held by a worker until `claimed_until`. Writes check *fence*, which every new claim raises."""

    id: str
    tenant: str
    agent: str
    workflow: str
    pattern: AccessPattern
    user: str | None
    connection: str | None
    delivery: str | None  # the delivery that started it, for the log
    request: str | None  # the request of the agents' API that started it
    event: Mapping[str, Any]
    config: Mapping[str, Any]
    triggered: bool  # by a person's act, not by a schedule
    accepted: int
    fence: int
    runs_spent: int
    waits_for: str | None  # what it was parked for, if that has not come
    wait_is_over: bool  # the wait had expired before this claim
    waited: timedelta  # time since it was due


# Every job runs these statements, so each is built once.
_HINTED = Prepared(
    select(jobs.c.tenant_id, jobs.c.pattern, jobs.c.state, type_coerce(database_now(), BigInteger).label("now")).where(
        jobs.c.id == bindparam("job")
    )
)
_CLAIM = (
    update(jobs)
    .where(IS_QUEUED, jobs.c.due_at <= database_now(), ~IS_HELD)
    .values(
        state=JobState.RUNNING,
        fence=jobs.c.fence + 1,
        claimed_until=database_in_microseconds("longer"),
        rung_until=null(),
        reason=null(),
    )
    .returning(jobs)
)
_CLAIM_HINTED = Prepared(_CLAIM.where(jobs.c.id == bindparam("job")))
_CLAIM_NEXT = Prepared(
    _CLAIM.where(
        jobs.c.id
        == select(jobs.c.id)
        .where(
            jobs.c.pattern == bindparam("of_pattern"),
            jobs.c.tenant_id == bindparam("tenant"),
            IS_QUEUED,
            jobs.c.due_at <= NOW,
        )
        .order_by(jobs.c.due_at, jobs.c.accepted)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
)
_DOCUMENT = Prepared(
    select(pinned_configuration.c.document).where(pinned_configuration.c.sha256 == bindparam("digest"))
)
_FINISH = Prepared(moving_job((jobs.c.id == bindparam("job")) & (jobs.c.fence == bindparam("held")), JobState.DONE))
_LOCK_CLAIM = Prepared(
    select(jobs.c.id)
    .where(jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("held"), jobs.c.state == JobState.RUNNING)
    .with_for_update()
)
_STATE_AND_REVOCATION = Prepared(select(jobs.c.state, jobs.c.revocation_id).where(jobs.c.id == bindparam("job")))


def claim(connection: Connection, job: str, *, claim_for: timedelta, lapses: int | None = None) -> ClaimedJob | None:
    """Claim the job a bell names, or else its tenant's next due job of the same pattern.

    None: neither is due, or the installation is held. Tenant and pattern are read from the job's row, never from the
    message. *lapses*, in microseconds since 1970, is when the bell expires and is replaced. After that it permits only
    the named job; otherwise a slow backlog would collect more permits than it has due jobs.
    """
    hinted = _HINTED.run(connection, {"job": job}).one_or_none()
    if hinted is None:
        return None
    longer = microseconds(claim_for)
    claimed = None
    if hinted.state == JobState.QUEUED:
        claimed = _CLAIM_HINTED.run(connection, {"job": job, "longer": longer}).one_or_none()
    if claimed is None and (lapses is None or lapses > hinted.now):
        whose = {"tenant": hinted.tenant_id, "of_pattern": hinted.pattern}
        claimed = _CLAIM_NEXT.run(connection, {**whose, "longer": longer}).one_or_none()
    if claimed is None:
        return None
    document = _DOCUMENT.run(connection, {"digest": claimed.config_sha256}).scalar_one()
    now = claimed.claimed_until - claim_for
    return ClaimedJob(
        id=claimed.id,
        tenant=claimed.tenant_id,
        agent=claimed.agent_id,
        workflow=claimed.workflow,
        pattern=AccessPattern(claimed.pattern),
        user=claimed.user_id,
        connection=claimed.connection_id,
        delivery=claimed.delivery_id,
        request=claimed.request_id,
        event=claimed.event,
        config=document,
        triggered=claimed.triggered_by is not None,
        accepted=claimed.accepted,
        fence=claimed.fence,
        runs_spent=claimed.runs_spent,
        waits_for=claimed.waits_for,
        wait_is_over=claimed.expires_at is not None and claimed.expires_at <= now,
        waited=now - claimed.due_at,
    )


def lock_claim(connection: Connection, job: ClaimedJob) -> bool:
    """Lock the claim until the transaction ends. False: the job was told to stop, or another worker has it."""
    return _LOCK_CLAIM.run(connection, {"job": job.id, "held": job.fence}).first() is not None


# The functions below end a run. Each returns the state it moved the job to; None: another claim has the job.


def requeue(
    connection: Connection,
    job: ClaimedJob,
    *,
    delay: timedelta,
    reason: str,
    waits_for: str | None = None,
    expires_in: timedelta = timedelta(),
) -> JobState | None:
    """Queue a running job again: for a retry, a yield, or a wait for an upstream. Spends no run.

    The job is due within a day even if *delay* is longer; its next run sees what to wait for then. A job that was told
    to stop is cancelled instead. *waits_for* begins a wait, or keeps the expiry of one for the same thing.
    """
    # Only from RUNNING: dead and cancelled jobs may be queued as well, but only by a person's replay.
    running, due_at = JobState.RUNNING, database_in(min(delay, LONGEST_WAIT))
    values: JobColumns = {"due_at": due_at, "reason": reason, **WAITS_ON}
    if waits_for is not None:
        values |= {"waits_for": waits_for, "expires_at": _kept_expiry(waits_for, expires_in)}
    if move_job(connection, job.id, JobState.QUEUED, fence=job.fence, source=running, **values):
        return JobState.QUEUED
    return cancel_if_stopping(connection, job)


def park(
    connection: Connection,
    job: ClaimedJob,
    wait: Wait,
    *,
    waits_for: str | None,
    due_in: timedelta,
    expires_in: timedelta,
    reason: str,
    lacks: Sequence[str] = (),
    step: Mapping[str, Any] | None = None,
) -> JobState | None:
    """Park a running job; a job told to stop is cancelled instead. *lacks*: the scopes that a consent must grant.

    *step*: the step it waits to open (`Intent.unopened`).

    With *due_in* before *expires_in*, a job that waits for the same thing as before keeps its earlier expiry: checking
    again does not prolong the wait. For an upstream, the due time is a place in its line and may lie behind the expiry.
    """
    expires_at, due_at = database_in(expires_in), database_in(due_in)
    if waits_for is not None and (due_in < expires_in or wait is Wait.UPSTREAM):
        expires_at = _kept_expiry(waits_for, expires_in)
        if wait is not Wait.UPSTREAM:
            due_at = case((due_at < expires_at, due_at), else_=expires_at)
    parked = move_job(
        connection,
        job.id,
        JobState.WAITING,
        fence=job.fence,
        wait=wait,
        waits_for=waits_for,
        lacks=list(lacks) or None,
        waiting_step=step,
        due_at=due_at,
        expires_at=expires_at,
        reason=reason,
    )
    return JobState.WAITING if parked else cancel_if_stopping(connection, job)


def _kept_expiry(waits_for: str, expires_in: timedelta) -> ColumnElement[datetime]:
    """Return the expiry of a wait that may go on: a job that waits for the same thing as before keeps it."""
    before = case((jobs.c.waits_for == waits_for, jobs.c.expires_at))
    return func.coalesce(before, database_in(expires_in), type_=Instant)


def cancel_if_stopping(connection: Connection, job: ClaimedJob) -> JobState | None:
    """Cancel a job that was told to stop; leave any other as it is."""
    stopped = move_job(connection, job.id, JobState.CANCELLED, fence=job.fence, source=JobState.STOPPING)
    return JobState.CANCELLED if stopped else None


def cancel(connection: Connection, job: ClaimedJob, *, reason: str) -> JobState | None:
    """Cancel a running job whose workflow did not catch the refusal of a step by a revocation."""
    running = JobState.RUNNING
    cancelled = move_job(connection, job.id, JobState.CANCELLED, fence=job.fence, source=running, reason=reason)
    return JobState.CANCELLED if cancelled else cancel_if_stopping(connection, job)


def finish(connection: Connection, job: ClaimedJob) -> JobState | None:
    """Mark the job as done after its function returned, even if it was told to stop."""
    done = _FINISH.run(connection, {"job": job.id, "held": job.fence}).rowcount == 1
    return JobState.DONE if done else None


def bury(connection: Connection, job: ClaimedJob, *, reason: str) -> JobState | None:
    """Declare the job dead, because no further run can help, until a person replays it."""
    buried = move_job(connection, job.id, JobState.DEAD, fence=job.fence, source=JobState.RUNNING, reason=reason)
    return JobState.DEAD if buried else cancel_if_stopping(connection, job)


def spend_run(
    connection: Connection,
    job: str,
    *,
    fence: int,
    limit: int,
    delay: timedelta,
    reason: str,
    if_lapsed: bool = False,
) -> JobState | None:
    """Count a failed run: queue the job again, or bury it at the *limit*. None: another claim has the job.

    *if_lapsed*: only if the claim is still expired. An opening extends a claim under the same fence, so a worker that
    was suspended may be back since the claim was found expired, with a call on the wire.
    """
    held = (jobs.c.id == job) & (jobs.c.fence == fence) & jobs.c.state.in_([JobState.RUNNING, JobState.STOPPING])
    if if_lapsed:
        held &= jobs.c.claimed_until < database_now()
    spent = connection.execute(select(jobs.c.runs_spent, jobs.c.state).where(held).with_for_update()).one_or_none()
    if spent is None:
        return None
    runs = spent.runs_spent + 1
    values: JobColumns = {"runs_spent": runs}
    if spent.state == JobState.STOPPING:
        to = JobState.CANCELLED
    elif runs >= limit:
        to = JobState.DEAD
        values["reason"] = f"{runs} runs failed; the last: {reason}"
    else:
        to = JobState.QUEUED
        values |= {"due_at": database_in(min(delay, LONGEST_WAIT)), "reason": reason, **WAITS_ON}
    moved = move_job(connection, job, to, fence=fence, source=JobState(spent.state), **values)
    return to if moved else None


def state_and_revocation(connection: Connection, job: str) -> tuple[JobState, str | None]:
    """Return the state of a job, and the revocation that stopped or cancelled it."""
    row = _STATE_AND_REVOCATION.run(connection, {"job": job}).one()
    return JobState(row.state), row.revocation_id


def lapsed(connection: Connection, *, limit: int) -> Sequence[Row[str, int, str]]:
    """Return expired claims: the worker died, or was suspended for too long."""
    statement = (
        select(jobs.c.id, jobs.c.fence, jobs.c.pattern).where(IS_CLAIMED, jobs.c.claimed_until < NOW).limit(limit)
    )
    return connection.execute(statement).all()
