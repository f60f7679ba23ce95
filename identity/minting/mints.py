"""Mints: ledger rows that record a token for one repository before it is requested.

Such a token is in no grant, so it has no refresh intent, but the same rule applies. Its row is committed under the
grant's locks, with a ledger number, before the socket is used. If the request reaches the provider after a revocation,
the ledger can show that it had begun before. A row without an end belongs to a process that died or could not write the
end; nobody has the token that it may have been given.

All functions run inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from identity.accounts.grants import get_grant
from identity.accounts.scopes import revoked_since
from identity.accounts.states import Account
from identity.hold import state_unless_held
from identity.minting.tables import mints
from identity.model import AccountState
from identity.sql.rows import insert_new
from identity.sql.sequence import lock_shared, next_number
from identity.withdrawals.held_tokens import HeldToken, keep_token

GRANTED = "granted"  # outcome of a mint whose token is held, under the same id
GRANTED_ELSEWHERE = "granted, but not for that repository alone"  # also held, only to be ended
_OUTCOME = 200  # longest stored outcome, in characters


@dataclass(frozen=True, kw_only=True)
class Mint:
    """A token of an account that is about to be requested. *id* is new, and names the resulting token."""

    id: str
    account: Account
    generation: int
    consented: int
    repository: str
    scopes: tuple[str, ...]
    started_at: datetime


def begin_mint(connection: Connection, new: Mint) -> int | None:
    """Record the mint under the rule for grants, and return its ledger number.

    None if the grant moved or was revoked: nothing may be sent. Safe to repeat, and repeated before each request for
    it. Raises Unavailable while the installation is held.
    """
    scopes = new.account.key.scopes
    lock_shared(connection, scopes)
    grant = get_grant(connection, new.account.id)
    if grant is None or (grant.generation, grant.consented) != (new.generation, new.consented):
        return None
    if revoked_since(connection, scopes, grant.consented) is not None:
        return None
    if state_unless_held(connection, new.account.id) is not AccountState.ACTIVE:
        return None
    row = {
        "id": new.id,
        "account_id": new.account.id,
        "generation": new.generation,
        "consented": new.consented,
        "repository": new.repository,
        "scopes": list(new.scopes),
        "opened": next_number(connection),
        "started_at": new.started_at,
    }
    insert_new(connection, mints, row)
    begun: int = connection.execute(select(mints.c.opened).where(mints.c.id == new.id)).scalar_one()
    return begun


def end_mint(connection: Connection, mint: str, *, outcome: str, now: datetime) -> None:
    """Record the outcome. Safe to repeat."""
    ended = update(mints).where(mints.c.id == mint)
    number = next_number(connection)
    connection.execute(ended.values(outcome=outcome[:_OUTCOME], finished_at=now, settled=number))


def hold_minted(
    connection: Connection, mint: Mint, *, sealed: bytes, expires_at: datetime | None, outcome: str, now: datetime
) -> bool:
    """Record that a token was granted, and hold it as `keep_token` does; True if it may be used. Safe to repeat."""
    held = HeldToken(
        id=mint.id,
        account=mint.account,
        generation=mint.generation,
        consented=mint.consented,
        access_sealed=sealed,
        expires_at=expires_at,
    )
    usable = keep_token(connection, held, now=now)
    # After its locks: the number shows whether a revocation came before the decision about the token.
    end_mint(connection, mint.id, outcome=outcome, now=now)
    return usable


def prune_mints(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete mints that began before then, ended or not; return how many. Their tokens have expired long before."""
    old = select(mints.c.id).where(mints.c.started_at < before).order_by(mints.c.started_at).limit(limit)
    return connection.execute(delete(mints).where(mints.c.id.in_(old))).rowcount
