"""The jobs of a revocation, as its receipt reports them: cancelled, finished, or able to go on without the scope."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, select

from pipeline.authoring.uses import OnRevoke
from pipeline.batches import in_batches
from pipeline.jobs import scope_sets
from pipeline.revocation.declaration import scope_of
from pipeline.revocation.pages import first_cancelled, page_sizes, stopping_jobs
from pipeline.revocation.tables import NARROWING
from pipeline.states import JobState
from pipeline.tables import jobs

NAMED = 1_000  # cancelled jobs that a receipt names itself; the rest are on its pages


def report_jobs(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    """Return the outcome of the jobs. A replay after the first receipt does not change it."""
    if row.receipt is not None:
        fields = ("cancelled_count", "cancelled_jobs", "finished_jobs", "skipping_jobs", "pages")
        return {key: row.receipt[key] for key in fields}
    pages = page_sizes(connection, row.id)
    ended = _ends_of(connection, stopping_jobs(connection, row.id), before=row.number)
    finished, stopped = ([job for job, by_itself in ended.items() if by_itself is wanted] for wanted in (True, False))
    return {
        "cancelled_count": sum(page.cancelled for page in pages) + len(stopped),
        "cancelled_jobs": [*first_cancelled(connection, row.id, limit=NAMED), *stopped][:NAMED],
        "finished_jobs": finished,  # they ran, and their function returned before their next step
        "skipping_jobs": 0 if row.kind == NARROWING else _count_skipping(connection, row),
        "pages": [
            {"number": page.number, "jobs": page.cancelled + page.stopping, "sha256": page.sha256} for page in pages
        ],
    }


def _ends_of(connection: Connection, ids: list[str], *, before: int) -> dict[str, bool]:
    """Return whether each of these jobs, which were told to stop, finished before its next step; else it was cancelled.

    A job accepted again since, whatever has become of it, was cancelled: a finished one cannot be replayed.
    """
    by_itself = (jobs.c.state == JobState.DONE) & (jobs.c.accepted < before)
    ended: dict[str, bool] = {}
    for some in in_batches(ids, NAMED):
        found = select(jobs.c.id, by_itself.label("by_itself")).where(jobs.c.id.in_(some))
        ended.update((row.id, row.by_itself) for row in connection.execute(found.order_by(jobs.c.accepted)))
    return ended


def _count_skipping(connection: Connection, row: Row[Any]) -> int:
    """Return how many unfinished jobs can go on without the steps that need the scope.

    None of them has reached a step that stops it yet.
    """
    count, after = 0, ""
    scope = scope_of(row)
    while sets := scope_sets.sets_with_work(
        connection, scope, before=row.number, after=after, then=OnRevoke.SKIP, limit=scope_sets.SETS
    ):
        found = scope_sets.jobs_of(before=row.number).where(jobs.c.scopes_sha256.in_(sets))
        count += connection.execute(found.with_only_columns(func.count())).scalar_one()
        after = sets[-1]
    return count
