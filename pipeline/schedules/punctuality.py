"""Punctuality of schedules: a stopped beat shows by its heartbeat, and by what it did not fire."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from identity.measuring import measuring
from identity.sql.store import Store
from pipeline import metrics
from pipeline.ledger.clock import ledger_now
from pipeline.model import BEAT
from pipeline.schedules.changes import LIVE
from pipeline.tables import heartbeats, schedules


@dataclass(frozen=True, kw_only=True)
class Punctuality:
    """The state of the schedules at one moment."""

    live: int  # schedules that are neither paused nor removed
    ticked_at: datetime | None  # by any beat
    error: str | None  # of the newest tick
    late: timedelta  # of the most overdue schedule without a fault of its own
    faults: dict[str, str]  # by schedule


def look(connection: Connection, *, now: datetime) -> Punctuality:
    """Return how the schedules are kept. *now*: by the ledger's clock, which dates heartbeats."""
    beat = select(heartbeats.c.at, heartbeats.c.error).where(heartbeats.c.duty == BEAT)
    newest = connection.execute(beat.order_by(heartbeats.c.at.desc()).limit(1)).first()
    sound = select(func.min(schedules.c.next_at)).where(LIVE, schedules.c.fault.is_(None))
    earliest: datetime | None = connection.execute(sound).scalar_one()
    faulty = select(schedules.c.id, schedules.c.fault).where(LIVE, schedules.c.fault.is_not(None))
    return Punctuality(
        live=connection.execute(select(func.count()).select_from(schedules).where(LIVE)).scalar_one(),
        ticked_at=None if newest is None else newest.at,
        error=None if newest is None else newest.error,
        late=timedelta() if earliest is None else max(now - earliest, timedelta()),
        faults={row.id: row.fault for row in connection.execute(faulty.order_by(schedules.c.id))},
    )


def measure(store: Store) -> None:
    """Set the gauges of the schedules. Only housekeeping does. A beat that never ticked is infinitely silent."""
    with measuring(metrics.BEAT_SILENT_SECONDS, metrics.SCHEDULE_LATE_SECONDS, metrics.SCHEDULES_FAULTY):
        _set(*store.read(lambda c: ((now := ledger_now(c)), look(c, now=now))))


def _set(now: datetime, found: Punctuality) -> None:
    if not found.live:  # nobody needs a beat then
        silent = 0.0
    elif found.ticked_at is None:
        silent = math.inf
    else:
        silent = max((now - found.ticked_at).total_seconds(), 0.0)
    metrics.BEAT_SILENT_SECONDS.set(silent)
    metrics.SCHEDULE_LATE_SECONDS.set(found.late.total_seconds())
    metrics.SCHEDULES_FAULTY.set(len(found.faults))
