"""Retention for identity's tables: ended refreshes, connect sessions, and keys nobody can use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, exists, select, tuple_

from identity.agents.tables import api_keys, workloads
from identity.connect_sessions.tables import connect_sessions
from identity.refresh.intents import IntentState
from identity.refresh.tables import refresh_intents
from identity.tables import grants

_ENDED = (
    IntentState.COMMITTED,
    IntentState.DEAD,
    IntentState.DISCARDED,
    IntentState.FAILED,
    IntentState.UNKNOWN,
)


@dataclass(frozen=True, kw_only=True)
class Bookmark:
    """The position of a scan through old rows, at which the next one continues."""

    at: datetime
    id: str


@dataclass(frozen=True, kw_only=True)
class Looked:
    """The result of scanning some rows."""

    number: int  # of rows scanned
    forgettable: Sequence[str]  # ids of the rows that may go
    bookmark: Bookmark | None  # None: there are no more


def look(
    connection: Connection,
    table: Table,
    *old: ColumnElement[bool],
    may_go: Select[str],
    after: Bookmark | None,
    limit: int,
    by: str = "finished_at",
) -> Looked:
    """Scan the next *limit* of the *old* rows in order of the time *by*, and find those that *may_go*.

    O(limit) with an index on that time and the id.
    """
    at, id = table.c[by], table.c.id
    found = select(at.label("at"), id).where(*old)
    if after is not None:
        found = found.where(tuple_(at, id) > (after.at, after.id))
    rows = connection.execute(found.order_by(at, id).limit(limit)).all()
    may_go = may_go.where(id.in_([row.id for row in rows]))
    return Looked(
        number=len(rows),
        forgettable=connection.execute(may_go).scalars().all(),
        bookmark=None if len(rows) < limit else Bookmark(at=rows[-1].at, id=rows[-1].id),
    )


def look_at_intents(connection: Connection, *, before: datetime, after: Bookmark | None, limit: int) -> Looked:
    """Scan the next intents that ended before *before*, and find those that may go."""
    old = refresh_intents.c.finished_at < before
    return look(connection, refresh_intents, old, may_go=_forgettable_intents(before), after=after, limit=limit)


def prune_intents(connection: Connection, *, before: datetime, ids: Sequence[str]) -> int:
    """Delete those of these intents that still may go; return how many."""
    columns = refresh_intents.c
    old = _forgettable_intents(before).where(columns.id.in_(ids))
    return connection.execute(delete(refresh_intents).where(columns.id.in_(old))).rowcount


def _forgettable_intents(before: datetime) -> Select[str]:
    """Select intents that ended before then, for generations that can never be presented again.

    The intent of a grant's present generation is what prevents a second presentation. An answer that is kept in order
    to be revoked at the provider stays until that is done.
    """
    columns = refresh_intents.c
    passed = exists().where(grants.c.account_id == columns.account_id, grants.c.generation > columns.generation)
    return select(columns.id).where(
        columns.finished_at < before, columns.state.in_(_ENDED), columns.answer_sealed.is_(None), passed
    )


def prune_sessions(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete connect sessions that expired before then, used or not; return how many."""
    columns = connect_sessions.c
    old = select(columns.id).where(columns.expires_at < before).order_by(columns.expires_at).limit(limit)
    return connection.execute(delete(connect_sessions).where(columns.id.in_(old))).rowcount


def prune_api_keys(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete keys of the agents' API that expired or were revoked before then, with their workloads; return how many.

    The bearer of a deleted key is then unknown, and no longer told that it has ended. The audit still says who had
    which.
    """
    columns = api_keys.c
    ended = (columns.expires_at < before) | (columns.revoked_at < before)
    old = connection.execute(select(columns.id).where(ended).limit(limit)).scalars().all()
    if old:
        connection.execute(delete(workloads).where(workloads.c.key_id.in_(old)))
        connection.execute(delete(api_keys).where(columns.id.in_(old)))
    return len(old)
