"""What refused connects had won and a provider could not be asked to end: of no revocation, so dealt with by itself.

All functions run inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update

from identity.sql.columns import is_one
from identity.tables import accounts
from identity.withdrawals import SHREDDED, Origin, WithdrawalState
from identity.withdrawals.tables import withdrawals

_ROW = withdrawals.c
_STUCK = is_one(_ROW.state, WithdrawalState.STUCK) & (_ROW.origin == Origin.CONNECT)


@dataclass(frozen=True, kw_only=True)
class StuckLeftover:
    """One connect's tokens."""

    id: str
    tenant: str
    account: str  # for which somebody came back
    reason: str | None
    since: datetime


def stuck_leftovers(connection: Connection, tenant: str | None, *, limit: int | None) -> list[StuckLeftover]:
    """A tenant's, or all, the oldest first."""
    found = select(_ROW.id, _ROW.reason, _ROW.created_at, accounts.c.tenant_id, _ROW.account_id)
    found = found.join(accounts, accounts.c.id == _ROW.account_id).where(_STUCK)
    if tenant is not None:
        found = found.where(accounts.c.tenant_id == tenant)
    return [
        StuckLeftover(id=row.id, tenant=row.tenant_id, account=row.account_id, reason=row.reason, since=row.created_at)
        for row in connection.execute(found.order_by(_ROW.created_at, _ROW.id).limit(limit))
    ]


def tenant_of_leftover(connection: Connection, id: str) -> str | None:
    """None: no refused connect had won that."""
    found = select(accounts.c.tenant_id).join(withdrawals, accounts.c.id == _ROW.account_id)
    return connection.execute(found.where(_ROW.id == id, _ROW.origin == Origin.CONNECT)).scalar_one_or_none()


def ask_leftover_again(connection: Connection, id: str, *, now: datetime) -> int:
    """An operator has acted: it is pending again. 0: it is not stuck."""
    again = {"state": WithdrawalState.PENDING, "tries": 0, "keyless": 0, "due_at": now, "reason": None}
    return connection.execute(update(withdrawals).where(_ROW.id == id, _STUCK).values(again)).rowcount


def give_up_leftover(connection: Connection, id: str, *, now: datetime) -> int:
    """An operator has ended it by other means, or accepts that it lives: it is shredded. 0: it is not stuck."""
    ends = {"state": WithdrawalState.GIVEN_UP, "finished_at": now, **SHREDDED}
    return connection.execute(update(withdrawals).where(_ROW.id == id, _STUCK).values(ends)).rowcount
