"""Redelivered signals: something true when it was first said may no longer be."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, exists, select

from identity.sql.rows import insert_or
from pipeline.tables import redeliveries

_KEPT = timedelta(days=7)  # after the request, which may come long after the signal was first said


def remember_asked(connection: Connection, owner: str, delivery_id: str, *, now: datetime) -> None:
    """Record a request for redelivery. Call it before the request: the delivery may arrive before its answer."""
    connection.execute(delete(redeliveries).where(redeliveries.c.asked_at < now - _KEPT))
    row = insert_or(connection, redeliveries).values(connection_id=owner, delivery_id=delivery_id, asked_at=now)
    connection.execute(
        row.on_conflict_do_update(index_elements=["connection_id", "delivery_id"], set_={"asked_at": now})
    )


def forget_asked(connection: Connection, owner: str) -> None:
    """Forget the requests of a removed connection: a new one with the same id has made none."""
    connection.execute(delete(redeliveries).where(redeliveries.c.connection_id == owner))


def was_asked(connection: Connection, owner: str, delivery_id: str) -> bool:
    """True if this delivery may be one that was requested."""
    columns = redeliveries.c
    asked = exists().where(columns.connection_id == owner, columns.delivery_id == delivery_id)
    return bool(connection.execute(select(asked)).scalar_one())
