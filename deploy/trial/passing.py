"""Simulated passage of time in a trial's ledger. It moves timestamps and changes no state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, select, type_coerce, update

from identity.sql.columns import Instant
from pipeline.states import JobState, Wait
from pipeline.tables import attempts, jobs, steps


def time_passes(connection: Connection) -> None:
    """Make everything due that waits for a time, and shift the job's earlier steps and attempts back by as much."""
    now = datetime.now(UTC)
    waits = (jobs.c.state == JobState.QUEUED) | jobs.c.wait.in_((Wait.TIME, Wait.ONCE, Wait.UPSTREAM))
    for job in connection.execute(select(jobs.c.id, jobs.c.due_at).where(waits, jobs.c.due_at > now)).all():
        left = job.due_at - now
        # A sleep is measured from its step's opening; a wait for an upstream has a date of its own.
        for statement in (
            update(jobs).where(jobs.c.id == job.id).values(due_at=now, **_earlier(left, jobs.c.expires_at)),
            update(steps).where(steps.c.job_id == job.id).values(_earlier(left, steps.c.opened_at, steps.c.closed_at)),
            update(attempts)
            .where(attempts.c.job_id == job.id)
            .values(_earlier(left, attempts.c.opened_at, attempts.c.closed_at)),
        ):
            connection.execute(statement)
    for statement in (
        update(jobs).where(jobs.c.claimed_until.is_not(None)).values(claimed_until=now),
        update(attempts).where(attempts.c.settled_by > now).values(settled_by=now),
    ):
        connection.execute(statement)


def _earlier(by: timedelta, *columns: Column[Any]) -> dict[str, ColumnElement[datetime]]:
    microseconds = by // timedelta(microseconds=1)
    return {one.name: type_coerce(type_coerce(one, BigInteger) - microseconds, Instant) for one in columns}
