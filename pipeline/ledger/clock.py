"""The ledger's clock: the database's, by which every host tells what is due, overdue or expired."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from identity.columns import database_now

_NOW = select(database_now())


def clock(connection: Connection) -> datetime:
    """What it shows now."""
    now: datetime = connection.execute(_NOW).scalar_one()
    return now
