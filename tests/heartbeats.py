"""Heartbeats as hosts left them at some other time."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from identity.sql.rows import insert_or
from identity.sql.store import Store
from pipeline.tables import heartbeats


def ticked(store: Store, *duties: str, at: datetime, host: str = "here", error: str | None = None) -> None:
    """These were done there then."""
    said = {"at": at, "error": error}

    def write(c: Connection) -> None:
        for duty in duties:
            row = insert_or(c, heartbeats).values(duty=duty, host=host, **said)
            c.execute(row.on_conflict_do_update(index_elements=["duty", "host"], set_=said))

    store.write(write)
