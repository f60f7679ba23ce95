"""The queues: what is due, what is under way and what waits, by access pattern."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, case, func, select

from identity.columns import database_now
from identity.model import AccessPattern
from pipeline.states import JobState
from pipeline.tables import jobs


@dataclass(kw_only=True)
class Queue:
    """The unfinished jobs of one pattern."""

    pattern: str
    due: int = 0
    later: int = 0  # queued, and not due yet
    running: int = 0
    stopping: int = 0
    waiting: Counter[str] = field(default_factory=Counter)  # by what for
    oldest_due: datetime | None = None


def queues(connection: Connection, tenant: str | None) -> list[Queue]:
    """One for each pattern, of one tenant's jobs or of all."""
    is_due = case((jobs.c.due_at <= database_now(), 1), else_=0).label("is_due")
    by = (jobs.c.pattern, jobs.c.state, jobs.c.wait, is_due)
    counted = select(*by, func.count().label("number"), func.min(jobs.c.due_at).label("oldest"))
    unfinished = counted.where(jobs.c.finished_at.is_(None)).group_by(*by)
    if tenant is not None:
        unfinished = unfinished.where(jobs.c.tenant_id == tenant)
    found = {str(pattern): Queue(pattern=str(pattern)) for pattern in AccessPattern}
    for row in connection.execute(unfinished):
        queue = found.setdefault(row.pattern, Queue(pattern=row.pattern))
        match JobState(row.state):
            case JobState.QUEUED if row.is_due:
                queue.due, queue.oldest_due = row.number, row.oldest
            case JobState.QUEUED:
                queue.later += row.number
            case JobState.RUNNING:
                queue.running += row.number
            case JobState.STOPPING:
                queue.stopping += row.number
            case JobState.WAITING:
                queue.waiting[row.wait or "time"] += row.number
            case _:
                continue  # it has ended
    return list(found.values())
