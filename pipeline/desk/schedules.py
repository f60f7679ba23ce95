"""What a person does about schedules: each change with its audit row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from identity.audit import Act
from pipeline.desk.changes import record_change
from pipeline.schedules import changes


def pause(connection: Connection, id: str, act: Act) -> None:
    """Fire nothing of it until it is resumed. Raises BadInput."""
    row = changes.pause_schedule(connection, id)
    record_change(connection, "schedule.paused", row.tenant_id, {"schedule": id}, act)


def resume(connection: Connection, id: str, act: Act) -> datetime:
    """Go on with the next slot; returns when that fires. Raises BadInput."""
    next_at = changes.resume_schedule(connection, id, now=act.now)
    row = changes.get_schedule(connection, id)
    record_change(connection, "schedule.resumed", row.tenant_id, {"schedule": id}, act)
    return next_at


def remove(connection: Connection, id: str, act: Act) -> None:
    """End a tenant's own schedule. Raises BadInput."""
    row = changes.remove_schedule(connection, id, now=act.now)
    record_change(connection, "schedule.removed", row.tenant_id, {"schedule": id}, act)
