"""Cancelling the jobs of a revocation in short transactions, each of which records the jobs it reached."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from identity.sql.columns import database_now
from pipeline.jobs import scope_sets
from pipeline.jobs.awaited import consenting
from pipeline.jobs.moves import moving_job
from pipeline.revocation.declaration import REACHING, Stage, load, load_held, scope_of
from pipeline.revocation.pages import counted, write_page
from pipeline.revocation.statements import reach_jobs
from pipeline.revocation.tables import revocations
from pipeline.states import JobState, Wait
from pipeline.tables import jobs

_AIM = timedelta(milliseconds=8)  # time for a chunk's statements; the rest of 20 ms is for the commit
# A smaller chunk is mostly its five round trips and its commit. On a busy machine these take longer than the aim, and
# without a minimum the size would fall to five jobs per commit.
_LEAST, _MOST = 250, 1_000
_BUSY = 10  # jobs per chunk when it waits for their locks
WAITS = 100  # ended in one transaction


class ChunkSize:
    """The number of jobs in a chunk, adapted to the time the last one took, and to what it waited for the ledger."""

    def __init__(self) -> None:
        self.jobs = _LEAST

    def after(self, jobs: int, took: timedelta, waited: timedelta = timedelta()) -> None:
        """Adapt to a chunk of *jobs* that took *took*, and *waited* for its turn and its commit.

        Among busy writers a chunk may take as long as it waited, because each of them waits no longer than the chunk
        did. Smaller chunks would wait more often.
        """
        if not jobs or not took:
            return
        fitting = int(jobs * (max(_AIM, waited) / took))
        self.jobs = min(max(fitting, _LEAST), self.jobs * 2, _MOST)


@dataclass(frozen=True)
class Cursor:
    """The position to continue from: the jobs of these sets, in the first set from that ledger number.

    *busy*: the remaining jobs are locked by other transactions, some of which open a step. A chunk that waited for them
    would keep all of its jobs locked meanwhile.
    """

    sets: Sequence[str] = ()
    since: int = 0
    busy: bool = False


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The result of one transaction."""

    cursor: Cursor
    jobs: int  # cancelled or told to stop
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
    """Cancel, or tell to stop, up to *limit* of the jobs from *cursor* that were accepted before the revocation."""
    began = monotonic()
    # Held: a job reached after the receipt was written would be cancelled, but on no page and never compensated.
    row = load_held(connection, revocation)
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
    """Reach jobs from *cursor* on. Return them as `reach_jobs` does, and the next cursor."""
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


def consent_waits(connection: Connection, revocation: str, *, sets: Sequence[str]) -> dict[str, list[str]]:
    """Return the jobs of these *sets* that wait for consent to an account below the revoked scope, by `waits_for`.

    Their workflow skips the revoked steps. No opening parks more of them once the revocation is effective.
    """
    row = load(connection, revocation)
    scope = scope_of(row)
    waiting = scope_sets.jobs_of(before=row.number).where(
        jobs.c.scopes_sha256.in_(sets), jobs.c.state == JobState.WAITING, jobs.c.wait == Wait.CONSENT
    )
    found: dict[str, list[str]] = {}
    for job in connection.execute(waiting.with_only_columns(jobs.c.id, jobs.c.waits_for).order_by(jobs.c.accepted)):
        found.setdefault(job.waits_for, []).append(job.id)
    return {
        waits_for: ids
        for waits_for, ids in found.items()
        if (key := consenting(waits_for)) is not None and scope in key.scopes
    }


def end_waits(connection: Connection, ids: Sequence[str], *, waits_for: str) -> None:
    """Requeue those of the jobs *ids* that still wait for this consent: one may have been woken meanwhile."""
    # By id: the index on `waits_for` would read every job that waits for the account, in each transaction.
    still = jobs.c.id.in_(ids) & (jobs.c.wait == Wait.CONSENT) & (func.coalesce(jobs.c.waits_for, "") == waits_for)
    connection.execute(moving_job(still, JobState.QUEUED, source=JobState.WAITING, due_at=database_now()))


def begin_draining(connection: Connection, revocation: str) -> None:
    """Start draining: every job was reached."""
    reaching = (revocations.c.id == revocation) & revocations.c.state.in_(REACHING)
    # Locked by a statement of its own: a count in the one that waits for the lock would miss the pages written by then.
    connection.execute(select(revocations.c.id).where(reaching).with_for_update())
    draining = update(revocations).where(reaching)
    connection.execute(draining.values(state=Stage.DRAINING, moved_at=database_now(), **counted(revocation)))
