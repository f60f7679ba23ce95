"""The ledger's clock: the database's, by which every host tells what is due, overdue or expired."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from identity.sql.columns import database_now
from identity.sql.prepared import Prepared

_ASK = Prepared(select(database_now()))

#: What it shows, for a statement that looks rows up by it. A subquery, which is asked for its time once: PostgreSQL
#: looks nothing up by a clock that moves as it looks.
NOW = _ASK.statement.scalar_subquery()


def ledger_now(connection: Connection) -> datetime:
    """What it shows now."""
    now: datetime = _ASK.run(connection).scalar_one()
    return now
