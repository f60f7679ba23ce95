"""The state that the coordinator reads before it decides.

It is not a snapshot: on PostgreSQL each statement sees everything committed before it. Account, grant, provider
connection and intent come from one statement, the client's secrets and the rule from later ones. Generation, scopes,
the rule and the account's state are checked again under the grant's locks, before anything is sent
(`identity.refresh.opening.begin`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, bindparam, select

from identity.accounts.grants import REFRESH, Grant, grant_of, token_binding
from identity.accounts.scopes import revoked_since
from identity.accounts.states import Account, account_of
from identity.connections.registry import connection_of
from identity.connections.secrets import SealedSecret, authenticator, live_secrets, was_retired
from identity.errors import AswhomError, GrantRevoked, Misconfigured, ReauthRequired
from identity.keys.vault import Binding
from identity.model import MINTED, AccountState, ProviderConnection, RuledOut
from identity.refresh.intents import TOKEN_ANSWER, RefreshIntent, intent_of
from identity.refresh.tables import refresh_intents
from identity.sql.prepared import Prepared
from identity.sql.rows import Part, columns_of
from identity.tables import accounts, grants, provider_connections
from identity.token_endpoint.gate import Endpoint

_OF_GENERATION = and_(
    refresh_intents.c.account_id == grants.c.account_id, refresh_intents.c.generation == grants.c.generation
)
_FIND = Prepared(
    select(*columns_of(accounts), *columns_of(provider_connections), *columns_of(grants), *columns_of(refresh_intents))
    .select_from(accounts)
    .join(provider_connections, provider_connections.c.id == accounts.c.connection_id)
    .outerjoin(grants, grants.c.account_id == accounts.c.id)
    .outerjoin(refresh_intents, _OF_GENERATION)
    .where(accounts.c.id == bindparam("account"))
)
_GENERATION_AND_ACTIVITY = Prepared(
    select(accounts.c.state, grants.c.generation)
    .select_from(accounts)
    .outerjoin(grants, grants.c.account_id == accounts.c.id)
    .where(accounts.c.id == bindparam("account"))
)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """An account with its grant, its provider connection, and the intent of its current generation."""

    account: Account
    grant: Grant
    connection: ProviderConnection
    paused: str | None
    secrets: tuple[SealedSecret, ...]  # live client secrets, in the order to try them for this account
    intent: RefreshIntent | None
    ruled_out: RuledOut | None
    token_refused: bool = False  # the caller saw an upstream refuse the current token: it is not served again

    @property
    def generation(self) -> int:
        return self.grant.generation

    @property
    def minted(self) -> bool:
        """True if tokens are minted without a refresh token: an attempt of unknown outcome costs at most one token."""
        return self.account.credential in MINTED

    @property
    def secret_name(self) -> str | None:
        """The name of the secret that authenticates the client for this account; None if there is none."""
        return authenticator(self.connection, self.account.credential)

    @property
    def token_endpoint(self) -> Endpoint:
        """The endpoint that issues this account's tokens."""
        return Endpoint.of(self.connection, self.account.credential)

    @property
    def refresh_binding(self) -> Binding:
        return self.binding(REFRESH, self.generation)

    @property
    def answer_binding(self) -> Binding:
        return self.binding(TOKEN_ANSWER, self.generation)

    @property
    def last_lifetime(self) -> timedelta | None:
        """The lifetime the current token was issued with, or None if it is unknown."""
        grant = self.grant
        if grant.access_sealed is None or grant.expires_at is None:
            return None
        return grant.expires_at - grant.obtained_at

    def token_lives(self, now: datetime) -> bool:
        """True if there is an access token that has not expired."""
        grant = self.grant
        return grant.access_sealed is not None and (grant.expires_at is None or grant.expires_at > now)

    def may_serve(self, now: datetime) -> bool:
        """True if the current token may be served while no newer one is available."""
        return self.token_lives(now) and not self.token_refused

    def another_was_shown(self, connection: Connection, *, since: datetime) -> bool:
        """True if a client secret other than the one now first in line may have been presented at *since*."""
        if (name := self.secret_name) is None:
            return False
        if any(one.refused_at is not None or max(one.created_at, one.used_from) > since for one in self.secrets):
            return True
        return was_retired(connection, self.connection.id, name, since=since)

    def binding(self, name: str, generation: int) -> Binding:
        account = self.account
        return token_binding(account.key.tenant, account.id, account.provider, name, generation)

    def prohibition(self) -> AswhomError | None:
        """Return the error that forbids fetching a token, or None. Misconfigured: the provider connection is paused."""
        account = self.account
        if self.ruled_out is not None:
            return GrantRevoked(f"account {account.id}: {self.ruled_out.reason}")
        if account.state is AccountState.REVOKED:
            return GrantRevoked(f"account {account.id} was revoked")
        if account.state is not AccountState.ACTIVE:
            return ReauthRequired(f"account {account.id} is {account.state}: {account.reason}", account=account.id)
        if self.paused is not None:
            return Misconfigured(f"provider connection {self.connection.id} is paused: {self.paused}")
        return None


def generation_and_activity(connection: Connection, account: str) -> tuple[int, bool]:
    """Return the generation of an account's credentials (0 if it has none) and whether the account is active."""
    row = _GENERATION_AND_ACTIVITY.run(connection, {"account": account}).one_or_none()
    return (0, False) if row is None else (row.generation or 0, row.state == AccountState.ACTIVE)


def read_situation(connection: Connection, account: str, *, token_refused: bool = False) -> Situation:
    """Read an account's situation. *token_refused*: an upstream has refused the current token.

    Raises Misconfigured for an unknown account, ReauthRequired for one without a grant.
    """
    row = _FIND.run(connection, {"account": account}).one_or_none()
    if row is None:
        raise Misconfigured(f"there is no account {account}")
    through, stored, asked = Part(row, provider_connections), Part(row, grants), Part(row, refresh_intents)
    if stored.account_id is None:
        raise ReauthRequired(f"account {account} was never connected", account=account)
    found, owner, grant = account_of(Part(row, accounts)), connection_of(through), grant_of(stored)
    intent = None if asked.id is None else intent_of(asked)
    wanted = authenticator(owner, found.credential)
    # Read after the intent: a reader that sees an intent failed by a refused secret must also see that refusal.
    secrets = live_secrets(connection, owner.id, wanted) if wanted else ()
    refused = intent.refused_keys if intent else ()
    return Situation(
        account=found,
        grant=grant,
        connection=owner,
        paused=through.paused_reason,
        secrets=tuple(sorted(secrets, key=lambda one: one.id in refused)),
        intent=intent,
        ruled_out=revoked_since(connection, found.key.scopes, grant.consented),
        token_refused=token_refused,
    )
