"""Stuck leftovers: tokens of refused connects that could not be ended and belong to no revocation.

All functions run inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update

from identity.sql.columns import is_one
from identity.tables import accounts
from identity.tenants import Tenants
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import SHREDDED, Origin, WithdrawalState

_ROW = withdrawals.c
_STUCK = is_one(_ROW.state, WithdrawalState.STUCK) & (_ROW.origin == Origin.CONNECT)


@dataclass(frozen=True, kw_only=True)
class StuckLeftover:
    """The tokens of one connect."""

    id: str
    tenant: str
    account: str  # the account that was to be connected
    reason: str | None
    since: datetime


def stuck_leftovers(connection: Connection, tenants: Tenants, *, limit: int | None) -> list[StuckLeftover]:
    """Return the tenants' stuck leftovers, oldest first."""
    found = select(_ROW.id, _ROW.reason, _ROW.created_at, accounts.c.tenant_id, _ROW.account_id)
    found = found.join(accounts, accounts.c.id == _ROW.account_id).where(_STUCK, tenants.among(accounts))
    return [
        StuckLeftover(id=row.id, tenant=row.tenant_id, account=row.account_id, reason=row.reason, since=row.created_at)
        for row in connection.execute(found.order_by(_ROW.created_at, _ROW.id).limit(limit))
    ]


def tenant_of_leftover(connection: Connection, id: str) -> str | None:
    """Return the tenant of a refused connect's leftover, or None if there is none with that id."""
    found = select(accounts.c.tenant_id).join(withdrawals, accounts.c.id == _ROW.account_id)
    return connection.execute(found.where(_ROW.id == id, _ROW.origin == Origin.CONNECT)).scalar_one_or_none()


def ask_leftover_again(connection: Connection, id: str, *, now: datetime) -> int:
    """Make a stuck leftover pending again after an operator acted. Return 0 if it is not stuck."""
    again = {"state": WithdrawalState.PENDING, "tries": 0, "keyless": 0, "due_at": now, "reason": None}
    return connection.execute(update(withdrawals).where(_ROW.id == id, _STUCK).values(again)).rowcount


def give_up_leftover(connection: Connection, id: str, *, now: datetime) -> int:
    """Shred a leftover that an operator ended by other means or accepts as valid. Return 0 if it is not stuck."""
    ends = {"state": WithdrawalState.GIVEN_UP, "finished_at": now, **SHREDDED}
    return connection.execute(update(withdrawals).where(_ROW.id == id, _STUCK).values(ends)).rowcount
