"""How time passes in a ledger where nothing waits for a clock. It moves dates, and no state."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, update

from pipeline.states import JobState, Wait
from pipeline.tables import attempts, jobs


def time_passes(connection: Connection) -> None:
    """Whatever waits for a moment waits no longer."""
    now = datetime.now(UTC)
    due, waiting = jobs.c.due_at > now, jobs.c.wait.in_((Wait.TIME, Wait.ONCE))
    for statement in (
        update(jobs).where(jobs.c.claimed_until.is_not(None)).values(claimed_until=now),
        update(jobs).where(jobs.c.state == JobState.QUEUED, due).values(due_at=now),
        update(jobs).where(waiting, due).values(due_at=now),
        update(attempts).where(attempts.c.settled_by > now).values(settled_by=now),
    ):
        connection.execute(statement)
