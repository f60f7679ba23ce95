"""The requests for tokens that were in flight when a revocation became effective: refreshes, and mints.

Each was written down with a ledger number before it left, and its outcome with another. What they win after it is used
by nobody, and has an end of its own at the provider (`pipeline.revocation.provider_side`).
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
from pipeline.revocation import scope_of, under

# A mint's two requests and its commits take less, though the ledger be away for as long as its token is held on to.
# Nobody but its own process writes its end.
_MINTING = timedelta(minutes=2)


class TokenRequest(StrEnum):
    """What asked for a token."""

    REFRESH = "refresh"  # and whatever else brings an account its next token
    MINT = "mint"  # of a token for one repository


_TABLES = {TokenRequest.REFRESH: refresh_intents, TokenRequest.MINT: mints}


def token_requests(connection: Connection, row: Row[Any], *, now: datetime) -> list[dict[str, Any]]:
    """What the receipt of the revocation *row* says of them, oldest first.

    Its first receipt names them all; of what retention has forgotten since then, in the words of that.
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
    """Those that began before the revocation, and whose outcome was not known before it."""
    columns = table.c
    # Looked up by what is in flight, which are few, and not by the accounts, which may be all there are.
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
    """What a mint is called until it has an outcome, in the words for refreshes."""
    return IntentState.OPEN if now < mint.started_at + _MINTING else IntentState.UNKNOWN
