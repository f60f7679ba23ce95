"""Operator actions on schedules, each with its audit row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from identity.audit import Act
from pipeline.desk.changes import record_change
from pipeline.schedules import changes


def pause(connection: Connection, id: str, act: Act) -> None:
    """Fire nothing until it is resumed. Raises BadInput."""
    row = changes.pause_schedule(connection, id)
    record_change(connection, "schedule.paused", row.tenant_id, {"schedule": id}, act)


def resume(connection: Connection, id: str, act: Act) -> datetime:
    """Resume with the next slot; return when it fires. Raises BadInput."""
    next_at = changes.resume_schedule(connection, id, now=act.now)
    row = changes.get_schedule(connection, id)
    record_change(connection, "schedule.resumed", row.tenant_id, {"schedule": id}, act)
    return next_at


def remove(connection: Connection, id: str, act: Act) -> None:
    """End a tenant's own schedule. Raises BadInput."""
    row = changes.remove_schedule(connection, id, now=act.now)
    record_change(connection, "schedule.removed", row.tenant_id, {"schedule": id}, act)
