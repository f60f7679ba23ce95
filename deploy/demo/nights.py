"""The nights of the demo: they come when the story says, whatever the time of day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, select, update

from pipeline.db.database import Database
from pipeline.schedules.changes import LIVE, pause_schedule
from pipeline.tables import schedules


def hold_back(database: Database) -> None:
    """Pause every schedule: one that came due while the story is told would start jobs that it knows nothing of."""

    def pause(c: Connection) -> None:
        for id in c.execute(select(schedules.c.id).where(LIVE)).scalars().all():
            pause_schedule(c, id)

    database.write(pause)


@contextmanager
def night(database: Database, schedule: str, *, now: datetime) -> Iterator[None]:
    """Have that schedule's slot be *now*, for a beat to fire; at the end it is paused again."""
    due = update(schedules).where(schedules.c.id == schedule).values(paused=False, next_at=now)
    database.write(lambda c: c.execute(due).rowcount)
    try:
        yield
    finally:
        database.write(lambda c: pause_schedule(c, schedule))
