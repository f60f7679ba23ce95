"""Grants: the credentials of an account, one generation at a time.

Every write names the generation that it read, so the second of two writers finds that it has moved (compare-and-set).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, Row, bindparam, select, update

from identity.accounts.scope_bounds import within
from identity.accounts.states import get_account, move_account
from identity.keys.vault import Binding, Vault
from identity.model import AccountKey, AccountState, ReconnectCause, Scope, TokenAnswer
from identity.oauth.token_digests import digest_of, prefix_digest_of
from identity.secret import Secret
from identity.sql.prepared import Prepared
from identity.sql.rows import Part
from identity.sql.sequence import lock_exclusive, lock_shared
from identity.tables import accounts, grants

ACCESS, REFRESH = "access_token", "refresh_token"

_NOTE_USE = Prepared(
    update(grants)
    .where(grants.c.account_id == bindparam("account"), grants.c.generation == bindparam("leased"))
    .values(used_at=bindparam("now"), keepalive_due=bindparam("now"), keepalive_rank=0)
)
_OF_ACCOUNT = Prepared(select(grants).where(grants.c.account_id == bindparam("account")))

#: The columns of a grant whose credentials were taken out or shredded.
EMPTIED: dict[str, None] = {
    "access_sealed": None,
    "refresh_sealed": None,
    "refresh_digest": None,
    "refresh_prefix_digest": None,
    "expires_at": None,
}


@dataclass(frozen=True, kw_only=True)
class Grant:
    """The stored credentials of an account, sealed."""

    account: str
    generation: int
    consented: int
    access_sealed: bytes | None = field(repr=False)
    refresh_sealed: bytes | None = field(repr=False)
    token_type: str
    scopes: tuple[str, ...]
    obtained_at: datetime
    expires_at: datetime | None
    consented_at: datetime | None = None  # None: the consent predates this column
    ceiling: tuple[str, ...] | None = None  # the scopes it was narrowed or bounded to


@dataclass(frozen=True, kw_only=True)
class SealedAnswer:
    """A token endpoint's answer, sealed for one generation of one account."""

    generation: int
    access_sealed: bytes | None = field(repr=False)
    refresh_sealed: bytes | None = field(repr=False)
    token_type: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    refresh_digest: str | None = None
    refresh_prefix_digest: str | None = None


def token_binding(tenant: str, account: str, provider: str, name: str, generation: int) -> Binding:
    """Return the binding of a token to its row."""
    return Binding(tenant=tenant, record=account, provider=provider, field=name, generation=generation)


def seal_answer(
    vault: Vault, answer: TokenAnswer, *, tenant: str, account: str, provider: str, generation: int
) -> SealedAnswer:
    """Return the answer, sealed as the credentials of *generation*."""

    def seal(secret: Secret | None, name: str) -> bytes | None:
        return secret and vault.seal(secret, token_binding(tenant, account, provider, name, generation))

    return SealedAnswer(
        generation=generation,
        access_sealed=seal(answer.access_token, ACCESS),
        refresh_sealed=seal(answer.refresh_token, REFRESH),
        token_type=answer.token_type,
        scopes=answer.scopes,
        expires_at=answer.expires_at,
        refresh_digest=answer.refresh_token and digest_of(answer.refresh_token),
        refresh_prefix_digest=answer.refresh_token and prefix_digest_of(answer.refresh_token),
    )


def no_token_yet(scopes: tuple[str, ...], *, generation: int) -> SealedAnswer:
    """Return the credentials of a service whose tokens are minted when needed."""
    return SealedAnswer(
        generation=generation,
        access_sealed=None,
        refresh_sealed=None,
        token_type="bearer",  # noqa: S106 - a kind of token, not a token
        scopes=scopes,
        expires_at=None,
    )


def get_grant(connection: Connection, account: str) -> Grant | None:
    """Return the account's grant, if it ever had one."""
    row = _OF_ACCOUNT.run(connection, {"account": account}).one_or_none()
    return None if row is None else grant_of(row)


def grant_of(row: Row[tuple[object, ...]] | Part) -> Grant:
    """Build the grant from a row of `grants`, or a joined row."""
    return Grant(
        account=row.account_id,
        generation=row.generation,
        consented=row.consented,
        access_sealed=row.access_sealed,
        refresh_sealed=row.refresh_sealed,
        token_type=row.token_type,
        scopes=tuple(row.scopes),
        obtained_at=row.obtained_at,
        expires_at=row.expires_at,
        consented_at=row.consented_at,
        ceiling=None if row.ceiling is None else tuple(row.ceiling),
    )


def rotate(
    connection: Connection, account: str, sealed: SealedAnswer, *, obtained_at: datetime, renewal_alone: bool
) -> bool:
    """Write a refresh's credentials over the previous generation; False if that has moved. `consented` stays.

    The refresh token is sealed for the new generation too: the provider's new one, or the old one sealed again.
    *renewal_alone*: the access token and scopes are out of date, so the stored scopes stay and the next step fetches a
    token.
    """
    mine = select(grants.c.ceiling, grants.c.scopes, accounts.c.provider).where(
        grants.c.account_id == account, accounts.c.id == grants.c.account_id
    )
    if (row := connection.execute(mine).one_or_none()) is None:
        return False
    granted = row.scopes if renewal_alone else sealed.scopes
    rotated = (
        update(grants)
        .where(grants.c.account_id == account, grants.c.generation == sealed.generation - 1)
        .values(
            generation=sealed.generation,
            access_sealed=None if renewal_alone else sealed.access_sealed,
            refresh_sealed=sealed.refresh_sealed,
            refresh_digest=sealed.refresh_digest,
            refresh_prefix_digest=sealed.refresh_prefix_digest,
            token_type=sealed.token_type,
            scopes=within(row.provider, granted, ceiling=row.ceiling),
            obtained_at=obtained_at,
            expires_at=None if renewal_alone else sealed.expires_at,
            **look_at(obtained_at),
        )
    )
    return connection.execute(rotated).rowcount == 1


def note_use(connection: Connection, account: str, *, generation: int, now: datetime) -> None:
    """Record the first lease of this generation, so that keep-alive knows what is in use."""
    _NOTE_USE.run(connection, {"account": account, "leased": generation, "now": now})


def look_at(now: datetime) -> dict[str, object]:
    """Return the columns that have keep-alive look at new credentials next."""
    return {"keepalive_due": now, "keepalive_rank": 0, "keepalive_failures": 0, "keepalive_error": None}


def bury(connection: Connection, account: str, *, generation: int, reason: str, now: datetime) -> bool:
    """Mark a grant as dead: a new generation without credentials, and the account waits for a person.

    False if the generation has moved (a loser never kills the winner) or the account was revoked, which takes
    precedence. Nothing is revoked, because a grant that expired from idleness looks the same.
    """
    if get_account(connection, account).state is AccountState.REVOKED:
        return False
    dead = (
        update(grants)
        .where(grants.c.account_id == account, grants.c.generation == generation)
        .values(generation=generation + 1, **EMPTIED)
    )
    if connection.execute(dead).rowcount == 0:
        return False
    needs, cause = AccountState.NEEDS_RECONNECT, ReconnectCause.DEAD
    move_account(connection, account, to=needs, reason=reason, cause=cause, now=now)
    return True


def lock_grant(connection: Connection, key: AccountKey) -> tuple[tuple[Scope, ...], Scope]:
    """Lock what a consent depends on: the account itself exclusively, the scopes above it shared. Return both."""
    *above, own = key.scopes
    lock_shared(connection, above)
    lock_exclusive(connection, own)
    return tuple(above), own
