"""Replay: accept a dead or cancelled job again, at a person's request."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, select

from identity import audit
from identity.audit import AsWhom, Work
from identity.errors import BadInput, NotInState
from identity.sql.columns import database_now
from identity.sql.sequence import next_number
from pipeline.jobs import pins
from pipeline.jobs.moves import JobColumns, move_job, reopen_steps
from pipeline.ledger.forgotten import no_job
from pipeline.operators import names_of
from pipeline.revocation.compensation import compensated_revocation, forget_refused
from pipeline.revocation.receipt import outdate
from pipeline.revocation.tables import compensations
from pipeline.states import CUT_SHORT, JobState
from pipeline.tables import jobs, once_keys, steps


def replay_job(
    connection: Connection,
    job: str,
    *,
    by: str,
    at: datetime,
    why: str | None = None,
    subject: str | None = None,
    people: Sequence[str] = (),
    event: Mapping[str, Any] | None = None,
    reads: Collection[str] = (),
) -> None:
    """Accept a dead or cancelled job again: its refused, failed and skipped steps reopen.

    Done steps keep their results and keys, unless nothing binds the job: then its reads are made again, and it runs
    with the tenant's present configuration. `pins.at_replay` decides by *reads*, the names of the actions that only
    read.

    *by* and *why*: the requester and their reason, for the audit. *subject*: their sign-in at the console, if any.
    *people*: the possible holders of the key they used. None of these may approve the job. *event* replaces the job's
    event if nothing binds that. Raises BadInput for a job in any other state, a pruned one, and a compensated one.
    """
    columns = (jobs.c.state, jobs.c.tenant_id, jobs.c.agent_id, jobs.c.event, jobs.c.pruned_at, jobs.c.replayed_by)
    # The lock prevents pruning or compensation of its steps until it is queued.
    row = connection.execute(select(*columns).where(jobs.c.id == job).with_for_update()).one_or_none()
    if row is None:
        raise no_job(connection, job)
    if row.state not in CUT_SHORT:
        raise NotInState(f"job {job} is {row.state}: only dead and cancelled jobs are replayed")
    if row.pruned_at is not None:
        raise BadInput(f"job {job} was pruned: its steps are forgotten, and done ones would be done again")
    if by_job := compensated_by(connection, job):
        raise BadInput(
            f"job {job} was compensated by job {by_job}: a replay would go on as if what was done still stood. "
            "A new delivery, request or slot starts a job that does it anew"
        )
    pin = pins.at_replay(connection, job, reads=reads)
    number = next_number(connection)
    values = JobColumns(
        accepted=number,
        due_at=database_now(),
        runs_spent=0,
        reason=f"replayed by {by}",
        replayed_by=list(dict.fromkeys((*(row.replayed_by or ()), *names_of(by, subject), *people))),
        revocation_id=None,
        config_sha256=pins.store(connection, pin.config),
    )
    changed = {"configuration": "the present one"} if pin.moved else {}
    if event is not None and pin.unbound:
        values["event"] = event
        changed["event"] = "read anew"
    moved = move_job(connection, job, JobState.QUEUED, source=JobState(row.state), **values)
    if not moved:
        raise BadInput(f"job {job} moved meanwhile: look at it with `aswhom jobs show {job}` and try again")
    reopen_steps(connection, job, unbound=pin.unbound)
    forget_refused(connection, job)
    if pin.unbound:  # keys that its steps hold without an effect, which they may no longer want
        connection.execute(delete(once_keys).where(once_keys.c.job_id == job))
    if (revocation := compensated_revocation(row.agent_id, row.event)) is not None:
        outdate(connection, [revocation])  # its receipt reports it as failed
    audit.record(
        connection,
        "job.replayed",
        AsWhom(tenant=row.tenant_id, agent=row.agent_id),
        Work(job=job),
        id=f"{job}.replayed.{number}",
        at=at,
        outcome="queued",
        reason=audit.said_by(by, why),
        detail=changed or None,
    )


def compensated_by(connection: Connection, job: str) -> str | None:
    """Return the first job that compensates a step of *job*; None: its effects stand."""
    followed = (
        select(compensations.c.job_id)
        .join(steps, steps.c.id == compensations.c.step_id)
        .where(steps.c.job_id == job, compensations.c.job_id.is_not(None))
        .order_by(steps.c.position)
        .limit(1)
    )
    return connection.execute(followed).scalar_one_or_none()
