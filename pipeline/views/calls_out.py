"""Calls and token requests in progress, as far as the ledger knows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from identity.refresh.intents import IS_UNSETTLED
from identity.refresh.tables import refresh_intents
from identity.sql.columns import is_one
from pipeline.states import AttemptState
from pipeline.tables import attempts


@dataclass(frozen=True, kw_only=True)
class CallsOut:
    """Requests without an end so far. Until their deadline, their sender may also have died."""

    calls: int  # of steps
    tokens: int  # requests for an account's next token, or answers not read yet


def calls_out(connection: Connection) -> CallsOut:
    """Count them, by the indexes over open rows."""
    calls = select(func.count()).select_from(attempts).where(is_one(attempts.c.state, AttemptState.OPEN))
    tokens = select(func.count()).select_from(refresh_intents).where(IS_UNSETTLED)
    return CallsOut(calls=connection.execute(calls).scalar_one(), tokens=connection.execute(tokens).scalar_one())
