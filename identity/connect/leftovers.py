"""Leftovers: tokens that a connect obtained before it was refused, to be ended at the provider.

Nobody uses them. They are stored as withdrawals that belong to no revocation and are asked about on their own.

Tokens that await a confirmation are leftovers that are not due yet. They end at that time even if a process dies,
unless a consent takes them back first. `kept_until` marks them; starting their end clears it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, delete, select, update

from identity.accounts.grants import ACCESS, REFRESH, get_grant, token_binding
from identity.accounts.states import ensure_account
from identity.keys.vault import Vault
from identity.model import AccountKey, Credential, TokenAnswer
from identity.secret import Secret
from identity.sql.rows import insert_new
from identity.sql.sequence import lock_exclusive
from identity.withdrawals.awaiting import IS_KEPT
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import Origin, WithdrawalState

GENERATION = 0  # leftovers belong to none

_ROW = withdrawals.c


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """The tokens that a connect session's callback obtained."""

    key: AccountKey
    provider: str
    client_id: str  # of the client that obtained it: the connection may get another
    started: int  # the session's ledger number
    answer: TokenAnswer
    external_id: str | None = None  # the owner at the provider; None if unknown

    @property
    def id(self) -> str:
        """The id of the withdrawal, to which the tokens are also sealed: the account may have no row yet."""
        return _id(self.started)

    def sealed(self, vault: Vault) -> dict[str, bytes | None]:
        """Return the tokens, sealed for storage."""

        def seal(secret: Secret | None, name: str) -> bytes | None:
            return secret and vault.seal(
                secret, token_binding(self.key.tenant, self.id, self.provider, name, GENERATION)
            )

        return {
            "access_sealed": seal(self.answer.access_token, ACCESS),
            "refresh_sealed": seal(self.answer.refresh_token, REFRESH),
        }


def leave(
    connection: Connection,
    leftover: Leftover,
    sealed: dict[str, bytes | None],
    *,
    account_id: str,
    now: datetime,
    until: datetime | None = None,
) -> None:
    """Schedule the end of a leftover, unless it was stored as a consent after all. Safe to repeat.

    *account_id* is used if the account has no row yet. *until* delays the end. Takes the account's lock.
    """
    # A consent with an unknown commit holds this lock until its transaction ends.
    lock_exclusive(connection, leftover.key.scope)
    credential = Credential.AUTHORIZATION_CODE
    account = ensure_account(
        connection, leftover.key, id=account_id, provider=leftover.provider, credential=credential, now=now
    )
    grant = get_grant(connection, account.id)
    if grant is not None and grant.consented == leftover.started:
        return
    row = {
        "id": leftover.id,
        "account_id": account.id,
        "origin": Origin.CONNECT,
        "credential": credential,
        "generation": GENERATION,
        "consented": leftover.started,
        "external_id": leftover.external_id,
        "client_id": leftover.client_id,
        "expires_at": leftover.answer.expires_at,
        "state": WithdrawalState.PENDING,
        "due_at": until or now,
        "kept_until": until,
        "created_at": now,
        **sealed,
    }
    insert_new(connection, withdrawals, row)


def kept_of(connection: Connection, started: int) -> Row[tuple[object, ...]] | None:
    """Return the sealed tokens that the session with that number keeps; None if they are ending or were taken."""
    return connection.execute(select(withdrawals).where(_ROW.id == _id(started), IS_KEPT)).one_or_none()


def take_back(connection: Connection, started: int, *, until: datetime) -> bool:
    """Cancel its end, in the transaction that stores it as a consent; False if its end may have begun."""
    still = delete(withdrawals).where(_ROW.id == _id(started), IS_KEPT, _ROW.kept_until == until)
    return connection.execute(still).rowcount == 1


def end_now(connection: Connection, started: int) -> None:
    """Make the session's kept tokens due at once: they can no longer be confirmed."""
    due = update(withdrawals).where(_ROW.id == _id(started), IS_KEPT)
    connection.execute(due.values(due_at=_ROW.created_at, kept_until=None))


def opened(
    vault: Vault,
    row: Row[tuple[object, ...]],
    *,
    key: AccountKey,
    provider: str,
    token_type: str,
    scopes: tuple[str, ...],
) -> TokenAnswer:
    """Return the unsealed tokens of a `kept_of` row. Raises Misconfigured."""

    def open_one(sealed: bytes, name: str) -> Secret:
        return vault.open(sealed, token_binding(key.tenant, row.id, provider, name, GENERATION))

    return TokenAnswer(
        access_token=open_one(row.access_sealed, ACCESS),
        refresh_token=None if row.refresh_sealed is None else open_one(row.refresh_sealed, REFRESH),
        expires_at=row.expires_at,
        scopes=scopes,
        token_type=token_type,
    )


def _id(started: int) -> str:
    return f"connect.{started}"
