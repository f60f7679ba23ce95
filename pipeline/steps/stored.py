"""Stored steps and attempts, and the settlement of attempts without an answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from identity import audit
from identity.sql.columns import database_now
from identity.sql.prepared import Prepared
from identity.sql.rows import insert_or
from identity.sql.sequence import next_number
from pipeline.jobs.calls import calls_in_doubt
from pipeline.jobs.claims import ClaimedJob, park
from pipeline.jobs.intents import Ended
from pipeline.jobs.moves import move_attempt
from pipeline.ledger.clock import ledger_now
from pipeline.states import AttemptState, Purpose, StepState, Wait
from pipeline.steps.closings import close_step, whom_of, work_of
from pipeline.tables import IS_OPEN, attempts, steps

_OF_JOB = Prepared(select(steps).where(steps.c.job_id == bindparam("job")))


def load(connection: Connection, job: str) -> dict[int, Row[Any]]:
    """Return all steps of a job by position. Read once a run."""
    rows = _OF_JOB.run(connection, {"job": job}).all()
    return {row.position: row for row in rows}


def attempts_of(connection: Connection, step: str) -> list[Row[Any]]:
    """Return the attempts of a step, oldest first."""
    return list(
        connection.execute(select(attempts).where(attempts.c.step_id == step).order_by(attempts.c.opened)).all()
    )


def sleep(
    connection: Connection,
    job: ClaimedJob,
    *,
    step: str,
    position: int,
    occurrence: int,
    request_hash: str,
    duration: timedelta,
) -> Ended | None:
    """Sleep as a step. None: the sleep is over; otherwise the job is parked, unless another worker has it."""
    now = ledger_now(connection)
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
        "principal_id": None,
        "pattern": None,
        "policy_version": 0,
        "once_key": None,
        "state": StepState.OPEN,
        "opened_at": now,
    }
    asked = {column: value for column, value in row.items() if column not in ("id", "job_id", "position")}
    connection.execute(
        insert_or(connection, steps)
        .values(row)
        .on_conflict_do_update(
            index_elements=["job_id", "position"],
            set_=asked,
            # A step reopened without a hash by a replay before anything was done: the request there may change.
            where=(steps.c.state == StepState.OPEN) & (steps.c.request_hash == ""),
        )
    )
    # Another worker may have stored its own step since this run read them: one that lost the job, or that has it now.
    there = (steps.c.job_id == job.id) & (steps.c.position == position)
    stored = connection.execute(select(steps.c.id, steps.c.action, steps.c.opened_at).where(there)).one()
    left = stored.opened_at + duration - now
    if stored.action == "run.sleep" and left <= timedelta():
        close_step(connection, stored.id, StepState.DONE, now=now, result={})
        return None
    reason, left = "the workflow sleeps", max(left, timedelta())
    parked = park(connection, job, Wait.TIME, waits_for=None, due_in=left, expires_in=left, reason=reason)
    return Ended(reason=reason if parked else "another worker has the job", moved=parked)


def settle(connection: Connection, attempt: Row[Any], *, now: datetime) -> bool:
    """Settle an open attempt whose deadline passed without an answer: it and its step become unknown.

    A search has no effect of its own, so it is closed; its step is as much in doubt as before. False: it was answered.
    """
    reason = "no answer was recorded before the deadline"
    if attempt.purpose == Purpose.PROBE:
        return _settle_probe(connection, attempt, reason, now=now)
    if move_attempt(connection, attempt.id, AttemptState.UNKNOWN, error=reason) is None:
        return False
    close_step(connection, attempt.step_id, StepState.UNKNOWN, now=now, error=reason)
    audit.record(
        connection,
        "attempt.unknown",
        whom_of(attempt),
        work_of(attempt),
        id=f"{attempt.id}.unknown",
        at=now,
        outcome="unknown",
        reason=reason,
    )
    return True


def _settle_probe(connection: Connection, attempt: Row[Any], reason: str, *, now: datetime) -> bool:
    """Close a search without effect. It takes a number, or a later revocation would count it as in flight."""
    number = next_number(connection)
    if move_attempt(connection, attempt.id, AttemptState.NO_EFFECT, closed=number, error=reason) is None:
        return False
    if calls_in_doubt(connection, attempt.step_id, but=attempt.id):  # opening the search had set the step to OPEN
        close_step(connection, attempt.step_id, StepState.UNKNOWN, now=now, error=reason)
    audit.record(
        connection,
        "attempt.closed",
        whom_of(attempt),
        work_of(attempt),
        id=f"{attempt.id}.{number}",
        at=now,
        number=number,
        outcome=str(AttemptState.NO_EFFECT),
        reason=reason,
        detail={"purpose": attempt.purpose},
    )
    return True


def overdue(connection: Connection, *, limit: int) -> list[Row[Any]]:
    """Return open attempts whose deadline has passed, in any state of their job."""
    late = IS_OPEN & (attempts.c.settled_by < database_now())
    statement = select(attempts).where(late).limit(limit)
    return list(connection.execute(statement).all())
