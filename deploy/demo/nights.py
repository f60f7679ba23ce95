"""The demo's nights, which come when the story says, whatever the time of day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, select, update

from pipeline.db.database import Database
from pipeline.schedules.changes import LIVE, pause_schedule
from pipeline.tables import schedules


def hold_back(database: Database) -> None:
    """Pause every schedule: one that fell due during the story would start jobs it does not expect."""

    def pause(c: Connection) -> None:
        for id in c.execute(select(schedules.c.id).where(LIVE)).scalars().all():
            pause_schedule(c, id)

    database.write(pause)


@contextmanager
def night(database: Database, schedule: str, *, now: datetime) -> Iterator[None]:
    """Make the schedule due *now*, for beat to fire. Pause it again at the end."""
    due = update(schedules).where(schedules.c.id == schedule).values(paused=False, next_at=now)
    database.write(lambda c: c.execute(due).rowcount)
    try:
        yield
    finally:
        database.write(lambda c: pause_schedule(c, schedule))
