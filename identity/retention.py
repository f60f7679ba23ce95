"""What identity's tables need not keep for ever: the ends of refreshes, connect sessions and keys nobody can use."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, exists, select

from identity.api_key_tables import api_keys, workloads
from identity.refresh.intents import IntentState
from identity.tables import connect_sessions, grants, refresh_intents

_ENDED = (
    IntentState.COMMITTED,
    IntentState.DEAD,
    IntentState.DISCARDED,
    IntentState.FAILED,
    IntentState.UNKNOWN,
)


def prune_intents(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete intents that ended before then, for generations that can never be presented again; how many.

    The intent of a grant's present generation is what keeps it from being presented twice. An answer that is kept to be
    revoked at the provider stays until that is done.
    """
    columns = refresh_intents.c
    passed = exists().where(grants.c.account_id == columns.account_id, grants.c.generation > columns.generation)
    old = (
        select(columns.id)
        .where(columns.finished_at < before, columns.state.in_(_ENDED), columns.answer_sealed.is_(None), passed)
        .order_by(columns.finished_at)
        .limit(limit)
    )
    return connection.execute(delete(refresh_intents).where(columns.id.in_(old))).rowcount


def prune_sessions(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete connect sessions that expired before then, used or not; how many."""
    columns = connect_sessions.c
    old = select(columns.id).where(columns.expires_at < before).order_by(columns.expires_at).limit(limit)
    return connection.execute(delete(connect_sessions).where(columns.id.in_(old))).rowcount


def prune_api_keys(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete keys of the agents' API that expired or were revoked before then, with their workloads; how many.

    Whoever still shows one is unknown, and no longer told that it has ended. The audit says who had which.
    """
    columns = api_keys.c
    ended = (columns.expires_at < before) | (columns.revoked_at < before)
    old = connection.execute(select(columns.id).where(ended).limit(limit)).scalars().all()
    if old:
        connection.execute(delete(workloads).where(workloads.c.key_id.in_(old)))
        connection.execute(delete(api_keys).where(columns.id.in_(old)))
    return len(old)
