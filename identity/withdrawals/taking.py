"""Moves credentials into withdrawals: from a grant, and from refreshes that ended after the revocation.

All functions run inside the caller's transaction, under the account's exclusive lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, or_, select, update

from identity.accounts.grants import EMPTIED
from identity.accounts.states import Account
from identity.refresh.late_answers import kept_answers
from identity.refresh.tables import refresh_intents
from identity.sql.rows import insert_new
from identity.tables import grants
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import Origin, WithdrawalState


@dataclass(frozen=True, kw_only=True)
class EndedConsents:
    """The consents that a revocation ends, by their ledger numbers."""

    after: int = 0  # consents up to this one ended by an earlier revocation; 0: none
    upto: int

    def covers(self, consented: int) -> bool:
        return self.after < consented <= self.upto

    def between(self, consented: ColumnElement[int]) -> ColumnElement[bool]:
        """Return `covers` as a condition on a column."""
        return consented.between(self.after + 1, self.upto)


def take_grant(
    connection: Connection, account: Account, ended: EndedConsents, *, revocation: str | None, now: datetime
) -> str | None:
    """Move the credentials of an ended consent into a withdrawal; return its id, if any."""
    columns = grants.c
    held = or_(columns.access_sealed.is_not(None), columns.refresh_sealed.is_not(None))
    which = (columns.account_id == account.id) & ended.between(columns.consented) & held
    grant = connection.execute(select(grants).where(which)).one_or_none()
    if grant is None:
        return None
    id = f"{account.id}.{grant.generation}"
    sealed = {
        "access_sealed": grant.access_sealed,
        "refresh_sealed": grant.refresh_sealed,
        "expires_at": grant.expires_at,
    }
    credential = {"generation": grant.generation, "consented": grant.consented, **sealed}
    _add(connection, account, id=id, origin=Origin.GRANT, revocation=revocation, now=now, credential=credential)
    connection.execute(update(grants).where(which).values(**EMPTIED, keepalive_due=None))
    return id


def take_answers(
    connection: Connection, account: Account, ended: EndedConsents, *, revocation: str | None, now: datetime
) -> list[str]:
    """Move the answers of discarded refreshes of ended consents into withdrawals; return their ids."""
    taken = []
    for intent in kept_answers(connection, account.id):
        if not ended.covers(intent.consented):
            continue
        credential = {
            "generation": intent.generation,
            "consented": intent.consented,
            "answer_sealed": intent.answer_sealed,
        }
        _add(
            connection,
            account,
            id=intent.id,
            origin=Origin.REFRESH,
            revocation=revocation,
            now=now,
            credential=credential,
        )
        emptied = update(refresh_intents).where(refresh_intents.c.id == intent.id)
        connection.execute(emptied.values(answer_sealed=None))
        taken.append(intent.id)
    return taken


def adopt(connection: Connection, account: str, ended: EndedConsents, *, revocation: str) -> list[str]:
    """Assign earlier withdrawals of ended consents to the revocation's receipt; return their ids."""
    columns = withdrawals.c
    unsaid = (columns.account_id == account) & columns.revocation_id.is_(None) & ended.between(columns.consented)
    unsaid &= (columns.state != WithdrawalState.HELD) & (columns.origin != Origin.CONNECT)
    found = list(connection.execute(select(columns.id).where(unsaid)).scalars())
    if found:
        connection.execute(update(withdrawals).where(columns.id.in_(found)).values(revocation_id=revocation))
    return found


def _add(
    connection: Connection,
    account: Account,
    *,
    id: str,
    origin: Origin,
    revocation: str | None,
    now: datetime,
    credential: Mapping[str, object],
) -> None:
    row = {
        "id": id,
        "account_id": account.id,
        "origin": origin,
        "credential": account.credential,
        "revocation_id": revocation,
        "state": WithdrawalState.PENDING,
        "due_at": now,
        "created_at": now,
    }
    insert_new(connection, withdrawals, {**row, **credential})
