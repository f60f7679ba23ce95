"""Whether processes of the installation are at work on a ledger, as far as it knows itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, select

from pipeline.ledger.clock import ledger_now
from pipeline.tables import heartbeats


@dataclass(frozen=True, kw_only=True)
class Beat:
    """A duty that was done."""

    duty: str
    host: str
    ago: timedelta  # by the ledger's clock


def newest_beat(connection: Connection) -> Beat | None:
    """The last that is known."""
    found = select(heartbeats.c.duty, heartbeats.c.host, heartbeats.c.at).order_by(heartbeats.c.at.desc()).limit(1)
    row = connection.execute(found).one_or_none()
    return None if row is None else Beat(duty=row.duty, host=row.host, ago=ledger_now(connection) - row.at)
