"""Signals that a sender was asked for again: what they say was true when it was first said, and may be no longer."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, exists, select

from identity.sql.rows import insert_or
from pipeline.tables import redeliveries

_KEPT = timedelta(days=7)  # after it was asked for, which may be long after it was said first


def remember_asked(connection: Connection, owner: str, delivery_id: str, *, now: datetime) -> None:
    """Before the request: what it brings may be here sooner than its answer."""
    connection.execute(delete(redeliveries).where(redeliveries.c.asked_at < now - _KEPT))
    row = insert_or(connection, redeliveries).values(connection_id=owner, delivery_id=delivery_id, asked_at=now)
    connection.execute(
        row.on_conflict_do_update(index_elements=["connection_id", "delivery_id"], set_={"asked_at": now})
    )


def forget_asked(connection: Connection, owner: str) -> None:
    """The connection is removed: another of its id has asked for nothing."""
    connection.execute(delete(redeliveries).where(redeliveries.c.connection_id == owner))


def was_asked(connection: Connection, owner: str, delivery_id: str) -> bool:
    """Whether this delivery may come since it was asked for."""
    columns = redeliveries.c
    asked = exists().where(columns.connection_id == owner, columns.delivery_id == delivery_id)
    return bool(connection.execute(select(asked)).scalar_one())
