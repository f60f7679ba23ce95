"""Held tokens: tokens outside any grant, kept sealed only so that a revocation can end them at the provider.

They are stored as withdrawals, so a revocation moves them and the withdrawer asks about them like any other. Their
minter uses them from memory. A token that expired unrevoked is deleted when the account's next one is held.

All functions run inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, select, update

from identity.accounts.scopes import revoked_since
from identity.accounts.states import Account
from identity.sql.rows import insert_new
from identity.sql.sequence import lock_shared
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.taking import EndedConsents
from identity.withdrawals.withdrawal import MOVES, Origin, WithdrawalState


@dataclass(frozen=True, kw_only=True)
class HeldToken:
    """A token that the provider has just minted for an account; *id* is new."""

    id: str
    account: Account
    generation: int
    consented: int
    access_sealed: bytes = field(repr=False)  # sealed like the account's own token of that generation
    expires_at: datetime | None


def keep_token(connection: Connection, new: HeldToken, *, now: datetime) -> bool:
    """Store the token; return True if it may be used. If revoked while it was minted, it is pending its end.

    Safe to repeat.
    """
    scopes = new.account.key.scopes
    lock_shared(connection, scopes)
    usable = revoked_since(connection, scopes, new.consented, or_stopped=False) is None
    columns = withdrawals.c
    expired = (columns.state == WithdrawalState.HELD) & (columns.expires_at <= now)
    connection.execute(delete(withdrawals).where(columns.account_id == new.account.id, expired))
    row = {
        "id": new.id,
        "account_id": new.account.id,
        "origin": Origin.CONFINED,
        "credential": new.account.credential,
        "generation": new.generation,
        "consented": new.consented,
        "access_sealed": new.access_sealed,
        "expires_at": new.expires_at,
        "state": WithdrawalState.HELD if usable else WithdrawalState.PENDING,
        "due_at": now,
        "created_at": now,
    }
    insert_new(connection, withdrawals, row)
    return usable


def take_held(
    connection: Connection, account: Account, ended: EndedConsents, *, revocation: str, now: datetime
) -> list[str]:
    """Make the unexpired held tokens of ended consents pending; return their ids.

    The caller holds the account's lock.
    """
    columns = withdrawals.c
    held = (columns.account_id == account.id) & (columns.state == WithdrawalState.HELD)
    held &= ended.between(columns.consented)
    found = list(connection.execute(select(columns.id).where(held, alive(now)).order_by(columns.id)).scalars())
    if found:
        moved = update(withdrawals).where(
            columns.id.in_(found), columns.state.in_(MOVES.sources(WithdrawalState.PENDING))
        )
        connection.execute(moved.values(state=WithdrawalState.PENDING, revocation_id=revocation, due_at=now))
    return found


def alive(now: datetime) -> ColumnElement[bool]:
    """Return the condition of rows whose token has not expired."""
    return withdrawals.c.expires_at.is_(None) | (withdrawals.c.expires_at > now)
