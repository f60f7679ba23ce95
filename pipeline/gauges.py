"""The gauges of the ledger: housekeeping alone sets them, from indexes over what is unfinished or dead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, Select, func, select

from identity import seal_lag
from identity.columns import database_now
from identity.model import AccessPattern
from identity.store import Store
from pipeline import metrics
from pipeline.ledger.steps import clock
from pipeline.states import AttemptState, JobState, Wait
from pipeline.tables import attempts, jobs


def measure(store: Store) -> None:
    """Set them all."""
    store.read(_due)
    store.read(_waiting)
    store.read(_dead)
    store.read(_unknown)
    store.read(lambda c: seal_lag.measure(c, now=clock(c)))


def _due(connection: Connection) -> None:
    due = (jobs.c.state == JobState.QUEUED) & (jobs.c.due_at <= database_now())
    statement = select(jobs.c.pattern, func.count(), func.min(jobs.c.due_at)).where(due).group_by(jobs.c.pattern)
    now = clock(connection)
    found = {pattern: (depth, _age(now, oldest)) for pattern, depth, oldest in connection.execute(statement)}
    for pattern in AccessPattern:
        depth, age = found.get(str(pattern), (0, 0.0))
        metrics.QUEUE_DEPTH.labels(str(pattern)).set(depth)
        metrics.OLDEST_DUE_SECONDS.labels(str(pattern)).set(age)


def _waiting(connection: Connection) -> None:
    waiting = select(jobs.c.wait, func.count()).where(jobs.c.state == JobState.WAITING).group_by(jobs.c.wait)
    found = _counted(connection, waiting)
    for wait in Wait:
        metrics.JOBS_WAITING.labels(str(wait)).set(found.get(str(wait), 0))


def _dead(connection: Connection) -> None:
    dead = select(jobs.c.pattern, func.count()).where(jobs.c.state == JobState.DEAD).group_by(jobs.c.pattern)
    found = _counted(connection, dead)
    for pattern in AccessPattern:
        metrics.JOBS_DEAD.labels(str(pattern)).set(found.get(str(pattern), 0))


def _unknown(connection: Connection) -> None:
    unknown = select(func.count()).select_from(attempts).where(attempts.c.state == AttemptState.UNKNOWN)
    metrics.UNKNOWN_ATTEMPTS.set(connection.execute(unknown).scalar_one())


def _counted(connection: Connection, statement: Select[str | None, int]) -> Mapping[str | None, int]:
    return dict(connection.execute(statement).all())


def _age(now: datetime, since: datetime) -> float:
    return max((now - since).total_seconds(), 0.0)
