"""Withdrawals that wait until their time: tokens of connects that may still be confirmed, and are ended if not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from identity.withdrawals.tables import withdrawals

_ROW = withdrawals.c
IS_KEPT = _ROW.kept_until.is_not(None)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Tokens that wait for a confirmation *until* then; afterwards they are due to end."""

    id: str
    account: str
    until: datetime


def kept(connection: Connection, accounts: Collection[str]) -> list[Kept]:
    """Return the tokens of these accounts that await a confirmation."""
    found = select(_ROW.id, _ROW.account_id, _ROW.kept_until).where(_ROW.account_id.in_(accounts), IS_KEPT)
    rows = connection.execute(found.order_by(_ROW.kept_until))
    return [Kept(id=row.id, account=row.account_id, until=row.kept_until) for row in rows]
