"""Token requests in flight when a revocation became effective: refreshes, and mints.

Each was recorded with a ledger number before it was sent, and its outcome with another. Tokens it wins after the
revocation are never used, and are ended at the provider separately (`pipeline.revoker.provider_side`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, exists, or_, select

from identity.minting.tables import mints
from identity.refresh.intents import IntentState
from identity.refresh.tables import refresh_intents
from identity.tables import accounts
from pipeline.batches import in_batches
from pipeline.revocation.declaration import scope_of, under

# A mint's two requests and its commits take less, even if the ledger is unavailable for as long as its token is kept.
# Only its own process records its end.
_MINTING = timedelta(minutes=2)


class TokenRequest(StrEnum):
    """The kind of a request for a token."""

    REFRESH = "refresh"  # and any other request that brings an account its next token
    MINT = "mint"  # of a token for one repository


_TABLES = {TokenRequest.REFRESH: refresh_intents, TokenRequest.MINT: mints}


def token_requests(connection: Connection, row: Row[Any], *, now: datetime) -> list[dict[str, Any]]:
    """Return the token requests for the receipt of the revocation *row*, oldest first.

    The first receipt names them all. Those that retention has removed since then keep its words.
    """
    if row.receipt is None:
        found = [
            (kind, one) for kind, table in _TABLES.items() for one in _rows(connection, table, _in_flight(row, table))
        ]
        return [_told(kind, one, now) for kind, one in sorted(found, key=lambda one: int(one[1].opened))]
    before = row.receipt["token_requests"]
    known: dict[str, dict[str, Any]] = {}
    for ids in in_batches([one["id"] for one in before]):
        for kind, table in _TABLES.items():
            known |= {one.id: _told(kind, one, now) for one in _rows(connection, table, table.c.id.in_(ids))}
    return [known.get(one["id"], one) for one in before]


def _in_flight(row: Row[Any], table: Table) -> ColumnElement[bool]:
    """Match requests begun before the revocation whose outcome was not known before it."""
    columns = table.c
    # Looked up from the requests in flight, which are few; the scope may cover all accounts there are.
    of_scope = exists().where(accounts.c.id == columns.account_id, under(scope_of(row), accounts))
    unsettled = or_(columns.settled.is_(None), columns.settled > row.number)
    return and_(of_scope, columns.opened < row.number, unsettled)


def _rows(connection: Connection, table: Table, which: ColumnElement[bool]) -> Sequence[Row[Any]]:
    return connection.execute(select(table).where(which)).all()


def _told(kind: TokenRequest, one: Row[Any], now: datetime) -> dict[str, Any]:
    return {
        "id": one.id,
        "kind": str(kind),
        "account": one.account_id,
        "generation": one.generation,
        "began_at": one.started_at.isoformat(),
        "ended_at": one.finished_at.isoformat() if one.settled is not None else None,
        "outcome": one.state if kind is TokenRequest.REFRESH else one.outcome or _without_end(one, now),
    }


def _without_end(mint: Row[Any], now: datetime) -> IntentState:
    """Return the state of a mint without an outcome, in the terms for refreshes."""
    return IntentState.OPEN if now < mint.started_at + _MINTING else IntentState.UNKNOWN
