"""Queues: due and running jobs by access pattern, and waiting ones; each count is by an index only.

Used by the console, the gauges and doctor. *of*: the tenants to count, each separately; None counts all as one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, func, select

from identity.model import AccessPattern
from identity.sql.columns import database_now
from pipeline.ledger.indexed import in_state
from pipeline.states import JobState
from pipeline.tables import IS_CLAIMED, jobs

IS_DUE = in_state(JobState.QUEUED) & (jobs.c.due_at <= database_now())
_IS_LATER = in_state(JobState.QUEUED) & (jobs.c.due_at > database_now())
LATE = timedelta(minutes=2)  # due for longer without a worker, as in the alert AswhomWorkWaits


Counted = tuple[str | None, str, int, datetime]


@dataclass(kw_only=True)
class Queue:
    """The jobs of one pattern that a worker has, or should have."""

    pattern: str
    due: int = 0
    later: int = 0  # queued, and not due yet
    running: int = 0
    stopping: int = 0
    oldest_due: datetime | None = None


def late(found: Iterable[Queue], *, now: datetime) -> tuple[int, datetime] | None:
    """Return the number of due jobs in late queues, and since when the oldest is due; None: no queue is late."""
    behind = [(queue.due, queue.oldest_due) for queue in found if queue.oldest_due and now - queue.oldest_due > LATE]
    return (sum(due for due, _ in behind), min(oldest for _, oldest in behind)) if behind else None


def queues(connection: Connection, of: Collection[str] | None = None) -> dict[str | None, list[Queue]]:
    """Return a queue per pattern, for each tenant."""
    found = {whose: {str(one): Queue(pattern=str(one)) for one in AccessPattern} for whose in _each(of)}
    for whose, pattern, number, oldest in _queued(connection, of, IS_DUE):
        queue = found[whose][pattern]
        queue.due, queue.oldest_due = number, oldest
    for whose, pattern, number, _ in _queued(connection, of, _IS_LATER):
        found[whose][pattern].later = number
    # Filtered here: with the tenant in the query, SQLite would go through all that the tenant ever had.
    for row in connection.execute(select(jobs.c.pattern, jobs.c.state, jobs.c.tenant_id).where(IS_CLAIMED)):
        whose = None if of is None else row.tenant_id
        if whose in found:
            queue = found[whose][row.pattern]
            queue.running += row.state == JobState.RUNNING
            queue.stopping += row.state == JobState.STOPPING
    return {whose: list(by_pattern.values()) for whose, by_pattern in found.items()}


def due(connection: Connection) -> dict[str, tuple[int, datetime]]:
    """Return, by pattern, how many jobs are due and since when the oldest is."""
    return {pattern: (number, oldest) for _, pattern, number, oldest in _queued(connection, None, IS_DUE)}


def waiting(connection: Connection, of: Collection[str] | None = None) -> dict[str | None, dict[str, int]]:
    """Return how many jobs wait, by kind of wait, for each tenant."""
    found: dict[str | None, dict[str, int]] = {whose: {} for whose in _each(of)}
    # Not the bare column, or SQLite would choose the index of all the tenants' jobs.
    theirs = None if of is None else func.coalesce(jobs.c.tenant_id, "").in_(of)
    for whose, wait, number, _ in _counted(connection, jobs.c.wait, in_state(JobState.WAITING), theirs):
        found[whose][wait] = number
    return found


def _each(of: Collection[str] | None) -> Collection[str | None]:
    return (None,) if of is None else of


def _queued(connection: Connection, of: Collection[str] | None, which: ColumnElement[bool]) -> Iterator[Counted]:
    # With the pattern, which its index starts with.
    theirs = None if of is None else jobs.c.pattern.in_(list(AccessPattern)) & jobs.c.tenant_id.in_(of)
    return _counted(connection, jobs.c.pattern, which, theirs)


def _counted(
    connection: Connection, by: Column[Any], which: ColumnElement[bool], theirs: ColumnElement[bool] | None
) -> Iterator[Counted]:
    """Yield the tenant, the value of *by*, the count, and when the oldest became due."""
    groups = [by] if theirs is None else [by, jobs.c.tenant_id]
    counted = select(*groups, func.count().label("number"), func.min(jobs.c.due_at).label("oldest")).where(which)
    for row in connection.execute((counted if theirs is None else counted.where(theirs)).group_by(*groups)):
        yield None if theirs is None else row.tenant_id, row[0], row.number, row.oldest
