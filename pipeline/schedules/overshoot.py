"""Schedules that a clock far ahead moved on too far: they would be silent until then, and nothing call them late."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, select

from identity.errors import BadInput
from pipeline.ledger.clock import ledger_now
from pipeline.schedules.changes import LIVE
from pipeline.schedules.timetable import Timetable, offset
from pipeline.tables import schedules

#: By so much a beat's clock may be ahead: it fires early, and what it moved on is left alone.
SLACK = timedelta(minutes=5)


def overshot(connection: Connection, *, now: datetime) -> list[tuple[Row[tuple[Any, ...]], datetime]]:
    """Those that would fire later than their next slot, and when that is to be fired; O(schedules).

    By *now* and by the ledger's clock: one that is behind must not have what was fired long ago fall due again.
    """
    now = max(now, ledger_now(connection))

    @cache
    def latest(cron: str, zone: str) -> datetime | None:
        try:
            return Timetable(cron=cron, zone=zone).after(now + SLACK)
        except BadInput:
            return None  # a line that cannot be kept says so when it is due

    found = []
    for row in connection.execute(select(schedules).where(LIVE, schedules.c.next_at > now + SLACK)):
        later = offset(row.id, timedelta(seconds=row.jitter_seconds))
        last = latest(row.cron, row.zone)
        if last is not None and row.next_at - later > last:
            found.append((row, Timetable(cron=row.cron, zone=row.zone).after(now - later) + later))
    return found
