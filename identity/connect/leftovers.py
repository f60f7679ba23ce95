"""Leftovers: tokens that a connect had won before it was refused, on their way to their end at the provider.

Nobody ever uses them. Their rows are among the withdrawals, and of no revocation: they are asked about by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from identity.accounts import ensure_account
from identity.grants import ACCESS, REFRESH, get_grant, token_binding
from identity.model import AccountKey, Credential, TokenAnswer
from identity.rows import insert_new
from identity.secret import Secret
from identity.sequence import lock_exclusive
from identity.vault import Vault
from identity.withdrawals import Origin, WithdrawalState
from identity.withdrawals.tables import withdrawals

GENERATION = 0  # they are of none


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """What the callback of a connect session had won."""

    key: AccountKey
    provider: str
    client_id: str  # of the client that won it: the connection may be given another
    started: int  # the session's ledger number
    answer: TokenAnswer
    external_id: str | None = None  # whose it is at the provider; None: not known

    @property
    def id(self) -> str:
        """The withdrawal's, to which its tokens are sealed too: the account may have no row yet."""
        return f"connect.{self.started}"

    def sealed(self, vault: Vault) -> dict[str, bytes | None]:
        """Its tokens, as they are stored."""

        def seal(secret: Secret | None, name: str) -> bytes | None:
            return secret and vault.seal(
                secret, token_binding(self.key.tenant, self.id, self.provider, name, GENERATION)
            )

        return {
            "access_sealed": seal(self.answer.access_token, ACCESS),
            "refresh_sealed": seal(self.answer.refresh_token, REFRESH),
        }


def leave(
    connection: Connection, leftover: Leftover, sealed: dict[str, bytes | None], *, account_id: str, now: datetime
) -> None:
    """Have the provider asked to end it, unless it was stored as a consent after all. Safe to repeat.

    *account_id* is the account's, should it have no row yet. Takes the account's lock.
    """
    # A consent whose commit nobody heard of holds this lock until it has ended.
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
        "due_at": now,
        "created_at": now,
        **sealed,
    }
    insert_new(connection, withdrawals, row)
