"""Calls that only a person can settle, by action and time, to settle very many at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from pipeline.ledger.indexed import UNANSWERED
from pipeline.ledger.paging import Record, rows_of
from pipeline.tables import attempts, jobs, steps


@dataclass(frozen=True, kw_only=True)
class Window:
    """The calls of one action sent between two times; optionally of one *tenant*."""

    action: str
    since: datetime
    until: datetime
    tenant: str | None = None


@dataclass(frozen=True, kw_only=True)
class UnansweredStep:
    """The calls of a step that one verdict covers."""

    job: str
    calls: tuple[str, ...]


def unanswered_in(connection: Connection, window: Window) -> list[Record]:
    """Return these calls, oldest first, with what a person checks before deciding. By the index of unknown calls."""
    columns = (
        attempts.c.id,
        attempts.c.job_id,
        attempts.c.step_id,
        attempts.c.opened_at,
        steps.c.action,
        jobs.c.tenant_id,
        jobs.c.workflow,
        jobs.c.state,
    )
    found = UNANSWERED.with_only_columns(*columns).join(steps, steps.c.id == attempts.c.step_id)
    found = found.where(
        steps.c.action == window.action,
        attempts.c.opened_at >= window.since,
        attempts.c.opened_at < window.until,
    )
    if window.tenant is not None:
        found = found.where(attempts.c.tenant_id == window.tenant)
    return rows_of(connection, found.order_by(attempts.c.opened, attempts.c.id))


def in_steps(calls: Iterable[Record]) -> Sequence[UnansweredStep]:
    """Group the calls by step, in order: one verdict covers all calls of a step."""
    by: dict[tuple[str, str], list[str]] = {}
    for call in calls:
        by.setdefault((call["job_id"], call["step_id"]), []).append(call["id"])
    return [UnansweredStep(job=job, calls=tuple(ids)) for (job, _), ids in by.items()]
