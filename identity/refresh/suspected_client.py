"""Decides whether a refusal without a named error, possibly from a gateway, concerns our client after all."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, select

from identity.refresh.intents import IntentState
from identity.refresh.situation import Situation
from identity.refresh.tables import refresh_intents
from identity.tables import accounts

_LATELY = timedelta(minutes=10)  # longer than the longest wait after a refusal


def refused_since(situation: Situation, code: str) -> datetime | None:
    """Return when every live secret had last been refused with *code*; None if not directly before this time.

    An outage in between starts afresh. A refusal of another secret within this same round does not count.
    """
    former = situation.intent
    if former is None or former.code != code[:64]:
        return None
    if former.refused_keys:
        return former.refused_since
    return former.finished_at if former.retry_at is not None else None  # then all had been refused


def is_of_client(connection: Connection, situation: Situation, code: str) -> bool:
    """True if *code* was returned to this account before and to another as well, with no token issued since.

    A minted token depends only on the client, so no second account is needed as evidence.
    """
    since = refused_since(situation, code)
    if since is None:
        return False
    if situation.minted:
        return True
    columns = refresh_intents.c
    refused = (columns.state == IntentState.FAILED) & (columns.code == code)
    refused &= columns.account_id != situation.account.id
    if not _is_there(connection, situation, refused, since=since - _LATELY):
        return False
    given = columns.state == IntentState.COMMITTED
    return not _is_there(connection, situation, given, since=since)


def _is_there(connection: Connection, situation: Situation, what: ColumnElement[bool], *, since: datetime) -> bool:
    """True if a refresh on the same provider connection has finished since then and matches *what*."""
    found = (
        select(refresh_intents.c.id)
        .join_from(refresh_intents, accounts, accounts.c.id == refresh_intents.c.account_id)
        .where(refresh_intents.c.finished_at >= since, what, accounts.c.connection_id == situation.connection.id)
    )
    return connection.execute(found.limit(1)).first() is not None
