"""Cancels the jobs of a revocation in short transactions, each of which writes down whom it reached."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, update

from identity.sql.columns import database_now
from pipeline.ledger import scope_sets
from pipeline.ledger.clock import ledger_now
from pipeline.ledger.job_moves import move_jobs
from pipeline.ledger.revocation_pages import counted, write_page
from pipeline.ledger.revocation_statements import reach_jobs
from pipeline.revocation import REACHING, Stage, load, scope_of
from pipeline.revocation.tables import revocations
from pipeline.states import JobState, Wait
from pipeline.tables import jobs
from pipeline.workflow import OnRevoke

_AIM = timedelta(milliseconds=8)  # of a chunk's statements; what is left of 20 ms is for the commit
# With fewer, a chunk is little but its five round trips and its commit: on a busy machine these alone take longer than
# the aim, and a size that followed them down would cancel five jobs a commit.
_LEAST, _MOST = 250, 1_000
_BUSY = 10  # jobs that are waited for in one chunk
SETS = 100  # looked up at a time
WAITS = 100  # ended in one transaction


class ChunkSize:
    """How many jobs a chunk takes: as many as the last one says can be done in the time."""

    def __init__(self) -> None:
        self.jobs = _LEAST

    def after(self, jobs: int, took: timedelta) -> None:
        """A chunk of *jobs* took that long."""
        if not jobs or not took:
            return
        fitting = int(jobs * (_AIM / took))
        self.jobs = min(max(fitting, _LEAST), self.jobs * 2, _MOST)


@dataclass(frozen=True)
class Cursor:
    """Where to go on: at the jobs of these sets, and of the first of them since that ledger number.

    *busy*: those are left that other transactions had, some of which open a step. A chunk that waited for them would
    keep all of its jobs from everyone meanwhile.
    """

    sets: Sequence[str] = ()
    since: int = 0
    busy: bool = False


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What one transaction did."""

    cursor: Cursor
    jobs: int  # that it cancelled or told to stop
    cancelled: Counter[str]  # by pattern
    took: timedelta


def cancel_chunk(
    connection: Connection,
    revocation: str,
    *,
    cursor: Cursor,
    limit: int,
    monotonic: Callable[[], float] = time.monotonic,
) -> Chunk:
    """Cancel, or tell to stop, up to *limit* of the jobs from *cursor* on that were accepted before the revocation."""
    began = monotonic()
    row = load(connection, revocation)
    if row.state not in REACHING:
        return Chunk(cursor=Cursor(), jobs=0, cancelled=Counter(), took=timedelta())
    limit = min(limit, _BUSY) if cursor.busy else limit
    reached, cursor = _reach(
        connection, row, cursor, limit, time_left=lambda: monotonic() - began < _AIM.total_seconds()
    )
    if row.state == Stage.EFFECTIVE:
        moving = update(revocations).where(revocations.c.id == revocation, revocations.c.state == Stage.EFFECTIVE)
        connection.execute(moving.values(state=Stage.CANCELLING))
    if reached:
        cancelled, stopping = (
            [job.id for job in reached if job.state == to] for to in (JobState.CANCELLED, JobState.STOPPING)
        )
        write_page(connection, revocation, cancelled, stopping)
    return Chunk(
        cursor=cursor,
        jobs=len(reached),
        cancelled=Counter(job.pattern for job in reached if job.state == JobState.CANCELLED),
        took=timedelta(seconds=monotonic() - began),
    )


def _reach(
    connection: Connection, revocation: Row[Any], cursor: Cursor, limit: int, *, time_left: Callable[[], bool]
) -> tuple[Sequence[Row[Any]], Cursor]:
    """The jobs that were reached, each as `reach_jobs` says; and where to go on."""
    reached: list[Row[Any]] = []
    since = cursor.since
    for place, digest in enumerate(cursor.sets):
        if reached and not time_left():
            return reached, Cursor(cursor.sets[place:], busy=cursor.busy)
        asked = limit - len(reached)
        some = reach_jobs(connection, revocation, digest, since=since, limit=asked, waits=cursor.busy)
        reached += some
        if len(some) == asked:
            return reached, Cursor(cursor.sets[place:], since=max(job.accepted for job in some), busy=cursor.busy)
        since = 0
    return reached, Cursor()


def end_waits(connection: Connection, revocation: str, *, sets: Sequence[str], limit: int) -> Sequence[str]:
    """Requeue up to *limit* jobs that wait for a consent they no longer need: their workflow skips the revoked steps.

    Returns the sets in which there may be more.
    """
    row = load(connection, revocation)
    for place, digest in enumerate(sets):
        waiting = scope_sets.jobs_of(before=row.number).where(
            jobs.c.scopes_sha256 == digest, jobs.c.state == JobState.WAITING, jobs.c.wait == Wait.CONSENT
        )
        found = waiting.with_only_columns(jobs.c.id).order_by(jobs.c.accepted).limit(limit)
        ids = connection.execute(found).scalars().all()
        if ids:
            now = ledger_now(connection)
            move_jobs(connection, ids, JobState.QUEUED, source=JobState.WAITING, due_at=now)
            return sets[place:] if len(ids) == limit else sets[place + 1 :]
    return ()


def begin_draining(connection: Connection, revocation: str) -> None:
    """Every job was reached."""
    connection.execute(
        update(revocations)
        .where(revocations.c.id == revocation, revocations.c.state.in_(REACHING))
        .values(state=Stage.DRAINING, moved_at=database_now(), **counted(revocation))
    )


def count_skipping(connection: Connection, row: Row[Any]) -> int:
    """How many unfinished jobs can go on without the steps that need the scope: none has come to a stricter one yet."""
    count, after = 0, ""
    scope = scope_of(row)
    while sets := scope_sets.sets_with_work(
        connection, scope, before=row.number, after=after, then=OnRevoke.SKIP, limit=SETS
    ):
        found = scope_sets.jobs_of(before=row.number).where(jobs.c.scopes_sha256.in_(sets))
        count += connection.execute(found.with_only_columns(func.count())).scalar_one()
        after = sets[-1]
    return count
