"""Dead letters: dead jobs grouped by cause, to replay all jobs that one mistake killed at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, tuple_

from pipeline.ledger.indexed import REPLAYABLE
from pipeline.ledger.paging import Record, rows_of
from pipeline.tables import jobs

MOST = 2_000  # examined or replayed at once
_OF_ONE_JOB = re.compile(r"\b[a-z]{2,4}[_-][0-9a-z]{20,}\b|\b[0-9a-f]{8,}\b|\d{4,}")  # ids, digests, numbers


@dataclass(frozen=True, kw_only=True)
class Group:
    """Dead jobs of one workflow with one cause, newest first."""

    workflow: str
    cause: str
    jobs: tuple[str, ...]
    newest: datetime
    oldest: datetime
    tenants: int
    example: str  # the newest one's full reason


@dataclass(frozen=True, kw_only=True)
class DeadLetters:
    """The groups, largest first. *all*: there are no older dead jobs."""

    groups: tuple[Group, ...]
    jobs: int
    all: bool


def cause(reason: str | None) -> str:
    """Return a reason without the parts specific to one job."""
    return _OF_ONE_JOB.sub("…", reason or "no reason was given")[:200]


def dead_letters(connection: Connection, tenant: str | None) -> DeadLetters:
    """Return the dead jobs of one tenant, or of all, by cause."""
    columns = (jobs.c.id, jobs.c.tenant_id, jobs.c.workflow, jobs.c.reason, jobs.c.created_at)
    found = select(*columns).where(REPLAYABLE)
    if tenant is not None:
        found = found.where(jobs.c.tenant_id == tenant)
    newest = found.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(MOST + 1)
    rows = connection.execute(newest).all()
    by: dict[tuple[str, str], list[Any]] = {}
    for row in rows[:MOST]:
        by.setdefault((row.workflow, cause(row.reason)), []).append(row)
    groups = sorted((_group(*key, of) for key, of in by.items()), key=lambda one: (-len(one.jobs), one.workflow))
    return DeadLetters(groups=tuple(groups), jobs=min(len(rows), MOST), all=len(rows) <= MOST)


def dead_behind(
    connection: Connection, tenant: str | None, last: tuple[datetime, str] | None
) -> Sequence[Row[str, str, str | None, datetime]]:
    """Return the next dead jobs after *last*, which is a creation time and id, oldest first; None: from the start."""
    found = select(jobs.c.id, jobs.c.workflow, jobs.c.reason, jobs.c.created_at).where(REPLAYABLE)
    if tenant is not None:
        found = found.where(jobs.c.tenant_id == tenant)
    if last is not None:
        found = found.where(tuple_(jobs.c.created_at, jobs.c.id) > last)
    return connection.execute(found.order_by(jobs.c.created_at, jobs.c.id).limit(MOST)).all()


def jobs_of(connection: Connection, ids: Collection[str]) -> list[Record]:
    """Return these jobs, oldest first, with what a person checks before replaying them."""
    columns = (jobs.c.id, jobs.c.tenant_id, jobs.c.user_id, jobs.c.reason, jobs.c.created_at)
    found = select(*columns).where(jobs.c.id.in_(ids))
    return rows_of(connection, found.order_by(jobs.c.created_at, jobs.c.id))


def still_dead(
    connection: Connection, shown: Collection[str], tenant: str | None, *, workflow: str, why: str
) -> list[str]:
    """Return those of the *shown* jobs that are still dead of that cause, oldest first; optionally of one tenant."""
    found = select(jobs.c.id, jobs.c.reason).where(REPLAYABLE, jobs.c.id.in_(shown))
    found = found.where(jobs.c.workflow == workflow)
    if tenant is not None:
        found = found.where(jobs.c.tenant_id == tenant)
    rows = connection.execute(found.order_by(jobs.c.created_at, jobs.c.id))
    return [row.id for row in rows if cause(row.reason) == why]


def _group(workflow: str, why: str, rows: Sequence[Any]) -> Group:
    return Group(
        workflow=workflow,
        cause=why,
        jobs=tuple(row.id for row in rows),
        newest=rows[0].created_at,
        oldest=rows[-1].created_at,
        tenants=len({row.tenant_id for row in rows}),
        example=rows[0].reason or "",
    )
