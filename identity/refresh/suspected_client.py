"""Whether a refusal that names no error, as a gateway's does, is of our client after all."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, select

from identity.refresh.intents import IntentState
from identity.refresh.situation import Situation
from identity.refresh.tables import refresh_intents
from identity.tables import accounts

_LATELY = timedelta(minutes=10)  # longer than what was refused is left alone


def refused_since(situation: Situation, code: str) -> datetime | None:
    """When the account was last told *code* whichever live secret was shown; None: not just before this time.

    An outage between two of them is a new beginning, and so is what another secret was told for this very request.
    """
    former = situation.intent
    if former is None or former.retry_at is None or former.code != code[:64]:
        return None
    return former.retry_at if former.refused_keys else former.finished_at  # `Blaming.key` hands it on as the first


def is_of_client(connection: Connection, situation: Situation, code: str) -> bool:
    """Whether *code*, which the account is told now, was told before and to another too, and nothing was given since.

    A token that is minted is the client's own, so no other account needs to be told the same.
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
    """Whether a refresh of an account of the same provider connection has ended so since then."""
    found = (
        select(refresh_intents.c.id)
        .join_from(refresh_intents, accounts, accounts.c.id == refresh_intents.c.account_id)
        .where(refresh_intents.c.finished_at >= since, what, accounts.c.connection_id == situation.connection.id)
    )
    return connection.execute(found.limit(1)).first() is not None
