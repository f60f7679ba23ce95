"""The queues: what is due and what is under way by access pattern, and what waits; each counted in an index alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, case, func, select

from identity.columns import database_now
from identity.model import AccessPattern
from pipeline.ledger.indexed import in_state
from pipeline.states import JobState
from pipeline.tables import IS_CLAIMED, jobs

LATE = timedelta(minutes=2)  # due for longer, and no worker has it: as AswhomWorkWaits has it


@dataclass(kw_only=True)
class Queue:
    """The jobs of one pattern that a worker has, or is to have."""

    pattern: str
    due: int = 0
    later: int = 0  # queued, and not due yet
    running: int = 0
    stopping: int = 0
    oldest_due: datetime | None = None


def late(found: Iterable[Queue], *, now: datetime) -> tuple[int, datetime] | None:
    """How many jobs are due in the queues that are late, and since when the oldest is; None: no queue is."""
    behind = [(queue.due, queue.oldest_due) for queue in found if queue.oldest_due and now - queue.oldest_due > LATE]
    return (sum(due for due, _ in behind), min(oldest for _, oldest in behind)) if behind else None


def queues(connection: Connection, tenant: str | None) -> list[Queue]:
    """One for each pattern, of one tenant's jobs or of all."""
    found = {str(pattern): Queue(pattern=str(pattern)) for pattern in AccessPattern}
    is_due = case((jobs.c.due_at <= database_now(), 1), else_=0).label("is_due")
    queued = select(jobs.c.pattern, is_due, func.count().label("number"), func.min(jobs.c.due_at).label("oldest"))
    queued = queued.where(in_state(JobState.QUEUED))
    # Whose they are is looked at here: asked with the tenant, SQLite would go through all that the tenant ever had.
    claimed = select(jobs.c.pattern, jobs.c.state, jobs.c.tenant_id).where(IS_CLAIMED)
    if tenant is not None:
        queued = queued.where(jobs.c.tenant_id == tenant)
    for row in connection.execute(queued.group_by(jobs.c.pattern, is_due)):
        queue = found[row.pattern]
        if row.is_due:
            queue.due, queue.oldest_due = row.number, row.oldest
        else:
            queue.later = row.number
    for row in connection.execute(claimed):
        if tenant in (None, row.tenant_id):
            queue = found[row.pattern]
            queue.running += row.state == JobState.RUNNING
            queue.stopping += row.state == JobState.STOPPING
    return list(found.values())


def waiting(connection: Connection, tenant: str | None) -> Mapping[str, int]:
    """How many jobs wait, by what for."""
    counted = select(jobs.c.wait, func.count().label("number"))
    counted = counted.where(in_state(JobState.WAITING))
    if tenant is not None:
        # Not the bare column, or SQLite would leave this index for that of all the tenant's jobs.
        counted = counted.where(func.coalesce(jobs.c.tenant_id, "") == tenant)
    return {row.wait: row.number for row in connection.execute(counted.group_by(jobs.c.wait))}
