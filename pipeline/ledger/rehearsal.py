"""A write of nothing, which is refused where one of something would be."""

from __future__ import annotations

from sqlalchemy import Connection, select

from pipeline.tables import jobs

# PostgreSQL takes a BEGIN and a COMMIT when it is read-only too, and refuses to lock rows then, even none.
# https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-USERS
_LOCK_NONE = select(jobs.c.id).limit(0).with_for_update()


def rehearse(connection: Connection) -> None:
    """For `write`: raises what that one would of a ledger that can only be read."""
    connection.execute(_LOCK_NONE)
