"""Schedules moved too far by a fast clock: they would be silent until then, and not count as late."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, select

from identity.errors import BadInput
from pipeline.authoring.timetable import Timetable, offset
from pipeline.ledger.clock import ledger_now
from pipeline.schedules.changes import LIVE
from pipeline.tables import schedules

#: A beat's clock may be ahead by this much: it fires early, and the schedules it moved are left alone.
SLACK = timedelta(minutes=5)


def overshot(connection: Connection, *, now: datetime) -> list[tuple[Row[tuple[Any, ...]], datetime]]:
    """Return schedules set later than their next slot, and when each should fire; O(schedules).

    Uses the later of *now* and the ledger's clock: a clock that is behind must not make fired slots due again.
    """
    now = max(now, ledger_now(connection))

    @cache
    def latest(cron: str, zone: str) -> datetime | None:
        try:
            return Timetable(cron=cron, zone=zone).after(now + SLACK)
        except BadInput:
            return None  # an invalid line is reported when it is due

    found = []
    for row in connection.execute(select(schedules).where(LIVE, schedules.c.next_at > now + SLACK)):
        later = offset(row.id, timedelta(seconds=row.jitter_seconds))
        last = latest(row.cron, row.zone)
        if last is not None and row.next_at - later > last:
            found.append((row, Timetable(cron=row.cron, zone=row.zone).after(now - later) + later))
    return found
