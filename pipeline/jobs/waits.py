"""Due waits: find the jobs whose wait is over, and decide how each continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Unpack

from sqlalchemy import Connection, Row, Select, case, exists, select, union_all, update

from identity.sql.columns import database_in, database_now
from pipeline.jobs.moves import WAITS_ON, JobColumns, move_job
from pipeline.ledger.clock import NOW
from pipeline.ledger.indexed import in_state
from pipeline.states import AttemptState, JobState, Purpose, StepState, Wait
from pipeline.tables import attempts, jobs, steps

_EXPIRED: Mapping[str, str] = {
    Wait.CONSENT: "nobody connected the account",
}
_LOOK_AGAIN = timedelta(hours=1)  # to see whether a call of unknown outcome was answered after all


def due_waits(connection: Connection, *, limit: int) -> Sequence[Row[Any]]:
    """Return the waits that have been due longest, each with whether it has expired."""
    return connection.execute(_due_for_longest(limit)).all()


@cache
def _due_for_longest(limit: int) -> Select[Any]:
    # The index leads with the reason of a wait: one query per reason reads only due rows.
    due = union_all(*(select(_due(wait, limit=limit).subquery()) for wait in Wait)).subquery()
    return select(due).order_by(due.c.due_at).limit(limit)


def _due(wait: Wait, *, limit: int) -> Select[Any]:
    return (
        select(
            jobs.c.id,
            jobs.c.pattern,
            jobs.c.fence,
            jobs.c.wait,
            jobs.c.due_at,
            (jobs.c.expires_at <= database_now()).label("expired"),
            jobs.c.reason,
        )
        .where(in_state(JobState.WAITING), jobs.c.wait == wait, jobs.c.due_at <= NOW)
        .order_by(jobs.c.due_at)
        .limit(limit)
    )


def end_wait(
    connection: Connection, job: str, *, fence: int, wait: str, expired: bool, reason: str | None
) -> JobState | None:
    """End a due wait: a missed consent or verdict buries the job; other waits look again.

    Returns None if it waits on, or was moved. *fence* is the job's when the wait was read: a later claim has raised it,
    and the job may have parked for something else since. A wait for an upstream never expires here: it may have come
    back while nothing of ours could look.
    """

    def end(to: JobState, **values: Unpack[JobColumns]) -> JobState | None:
        return to if move_job(connection, job, to, fence=fence, source=JobState.WAITING, **values) else None

    now = database_now()
    if wait == Wait.UNKNOWN and not _in_doubt(connection, job):
        return end(JobState.QUEUED, due_at=now, reason="an answer that came late says what became of the call")
    if wait in (Wait.TIME, Wait.APPROVAL):
        return end(JobState.QUEUED, due_at=now)
    if expired and wait != Wait.UPSTREAM:
        return end(JobState.DEAD, reason=f"{_EXPIRED.get(wait, 'nobody came')} in time: {reason or wait}")
    # Looking again does not end a wait: if the job parks for the same thing, its expiry stays. A wait for consent is
    # due before it expires only if its account was refused; by now it may get a token.
    if wait in (Wait.ONCE, Wait.CONSENT, Wait.UPSTREAM):
        looks: JobColumns = {"due_at": now, **WAITS_ON}
        return end(JobState.QUEUED, **looks)
    _put_off(connection, job, fence=fence)
    return None


def _put_off(connection: Connection, job: str, *, fence: int) -> None:
    """Postpone the next look: only a person's decision, expiry or a late answer ends this wait."""
    this = (jobs.c.id == job) & (jobs.c.fence == fence) & (jobs.c.state == JobState.WAITING)
    again = database_in(_LOOK_AGAIN)
    sooner = case((again < jobs.c.expires_at, again), else_=jobs.c.expires_at)
    connection.execute(update(jobs).where(this).values(due_at=sooner))


def _in_doubt(connection: Connection, job: str) -> bool:
    """True if a call of an unfinished step of this job may have had an unknown effect."""
    unsettled = [AttemptState.OPEN, AttemptState.UNKNOWN]
    doubt = exists().where(
        steps.c.job_id == job,  # indexed, unlike the job of an attempt
        attempts.c.purpose == Purpose.CALL,
        attempts.c.state.in_(unsettled),
        steps.c.id == attempts.c.step_id,
        steps.c.state.in_([StepState.OPEN, StepState.UNKNOWN]),
    )
    return bool(connection.execute(select(doubt)).scalar_one())
