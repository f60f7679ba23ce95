"""The ledger's clock: the database's, by which every host decides what is due, overdue or expired."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from identity.sql.columns import database_now
from identity.sql.prepared import Prepared

_ASK = Prepared(select(database_now()))

#: The present time, for statements that look rows up by it. A subquery is evaluated once: PostgreSQL uses no index for
#: a clock that moves as it looks.
NOW = _ASK.statement.scalar_subquery()


def ledger_now(connection: Connection) -> datetime:
    """Return the ledger's present time."""
    now: datetime = _ASK.run(connection).scalar_one()
    return now
