"""Moves of jobs, steps and attempts: every state change is conditional on a legal source state.

Two statements move jobs elsewhere: the claim (`pipeline.jobs.claims`), and a revocation, which finds, locks and moves
many at once (`pipeline.revocation.statements`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, Row, Update, bindparam, update

from identity.sql.columns import database_now, is_among
from identity.sql.prepared import Prepared
from pipeline.states import (
    ATTEMPT_MOVES,
    ENDED,
    JOB_MOVES,
    STEP_MOVES,
    AttemptState,
    CountsAs,
    JobState,
    Purpose,
    StepState,
    Wait,
)
from pipeline.tables import attempts, jobs, steps

WAITS_NO_MORE: Mapping[str, None] = dict.fromkeys(
    ("rung_until", "wait", "waits_for", "lacks", "waiting_step", "expires_at")
)

# Step states that a replay reopens. A run never does: a late call must not undo a refusal, unless it had its effect.
_REPLAYED = (StepState.REFUSED, StepState.FAILED, StepState.SKIPPED)


class JobColumns(TypedDict, total=False):
    """Columns a move of a job may write besides the state: values, or database expressions."""

    due_at: datetime | ColumnElement[datetime]
    reason: str | None
    wait: Wait
    waits_for: str | ColumnElement[str | None] | None
    lacks: list[str] | None
    waiting_step: Mapping[str, Any] | None
    expires_at: ColumnElement[datetime] | ColumnElement[datetime | None]
    runs_spent: int
    revocation_id: str | None
    accepted: int
    replayed_by: list[str]
    config_sha256: str
    event: Mapping[str, Any]


# A move with these keeps the wait: this run has not seen whether the awaited thing has come. If the job parks for the
# same thing again, its expiry stays. Opening a step ends the wait (`pipeline.steps.openings`), except for the step's
# own upstream: only its answer ends that one (`pipeline.steps.closings`).
WAITS_ON: JobColumns = {"waits_for": jobs.c.waits_for, "expires_at": jobs.c.expires_at}


class StepColumns(TypedDict, total=False):
    """Columns a move of a step may write besides the state: plain values, bound as they are."""

    error: str | None
    closed_at: datetime | None
    result: Mapping[str, Any]
    external_id: str | None
    adopted_from: str | None
    upstream_gone: bool | None


class AttemptColumns(TypedDict, total=False):
    """Columns a move of an attempt may write besides the state: plain values, bound as they are."""

    closed: int
    closed_at: datetime
    status: int | None
    upstream_request_id: str | None
    error: str | None
    counts_as: CountsAs | None


def move_job(
    connection: Connection,
    job: str,
    to: JobState,
    *,
    fence: int | None = None,
    source: JobState | None = None,
    **values: Unpack[JobColumns],
) -> bool:
    """Move one job if its state allows it, and if its fence is still *fence*.

    *values*: the other columns to write. Columns that the new state does not use are cleared unless named there, so no
    bell, claim or wait outlives its state. False: another writer came first.
    """
    which = jobs.c.id == job
    if fence is not None:
        which &= jobs.c.fence == fence
    return connection.execute(moving_job(which, to, source=source, **values)).rowcount == 1


def moving_job(
    which: ColumnElement[bool], to: JobState, *, source: JobState | None = None, **values: Unpack[JobColumns]
) -> Update:
    """Build the statement of a move: from *source* only, or from every state the table allows."""
    sources = [source] if source and JOB_MOVES.check(source, to) else JOB_MOVES.sources(to)
    cleared: dict[str, Any] = {**WAITS_NO_MORE, "finished_at": database_now() if to in ENDED else None}
    if to not in (JobState.RUNNING, JobState.STOPPING):
        cleared["claimed_until"] = None
    return update(jobs).where(which, is_among(jobs.c.state, *sources)).values(**{**cleared, "state": to, **values})


def step_sources(to: StepState) -> list[StepState]:
    """Return the states from which a run may move a step to *to*."""
    by_replays = (*_REPLAYED, StepState.DONE)
    return [state for state in STEP_MOVES.sources(to) if to is not StepState.OPEN or state not in by_replays]


def move_step(connection: Connection, step: str, to: StepState, **values: Unpack[StepColumns]) -> bool:
    """Move one step of a run. *values*: the other columns to write. False: its state does not allow the move."""
    return _move_step(to).run(connection, {"step": step, "state": to, **values}).rowcount == 1


def reopen_steps(connection: Connection, job: str, *, unbound: bool) -> None:
    """Reopen the refused, failed or skipped steps of *job*, which a person replays.

    *unbound*: nothing had an effect, so the function may ask for something else at each position. The steps lose their
    hashes, and those that are done, which only read, open again as well.
    """
    reopened = (*_REPLAYED, StepState.DONE) if unbound else _REPLAYED
    for source in reopened:
        STEP_MOVES.check(source, StepState.OPEN)
    mine = steps.c.job_id == job
    opens = {"state": StepState.OPEN, "error": None, "closed_at": None, "adopted_from": None, "upstream_gone": None}
    connection.execute(update(steps).where(mine, steps.c.state.in_(reopened)).values(opens))
    if unbound:
        # Their answers must not pass for the effect of what the function asks for now, which may be a write.
        answered = (attempts.c.job_id == job) & attempts.c.state.in_([AttemptState.EFFECT, AttemptState.ADOPTED])
        connection.execute(update(attempts).where(answered).values(purpose=Purpose.READ_BEFORE))
        connection.execute(update(steps).where(mine).values(request_hash="", result=None, external_id=None))


def move_attempt(
    connection: Connection, attempt: str, to: AttemptState, **values: Unpack[AttemptColumns]
) -> Row[Any] | None:
    """Move one attempt and return its row. *values*: the other columns to write. None: it was already resolved."""
    return _move_attempt(to).run(connection, {"attempt": attempt, "state": to, **values}).one_or_none()


# Built once: every step runs those for each state.


@cache
def _move_attempt(to: AttemptState) -> Prepared:
    condition = (attempts.c.id == bindparam("attempt")) & is_among(attempts.c.state, *ATTEMPT_MOVES.sources(to))
    return Prepared(update(attempts).where(condition).returning(attempts))


@cache
def _move_step(to: StepState) -> Prepared:
    condition = (steps.c.id == bindparam("step")) & is_among(steps.c.state, *step_sources(to))
    return Prepared(update(steps).where(condition))
