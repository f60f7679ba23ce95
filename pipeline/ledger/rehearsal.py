"""A trial write that changes nothing, but fails on a read-only ledger as a real one would."""

from __future__ import annotations

from sqlalchemy import Connection, select

from pipeline.tables import jobs

# A read-only PostgreSQL accepts BEGIN and COMMIT, but refuses to lock rows, even none.
# https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-USERS
_LOCK_NONE = select(jobs.c.id).limit(0).with_for_update()


def rehearse(connection: Connection) -> None:
    """Run inside `write`, to raise what a real write to a read-only ledger would."""
    connection.execute(_LOCK_NONE)
