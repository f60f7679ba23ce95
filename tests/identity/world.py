"""A small world for identity's tests: one tenant, one person, one service, one provider connection."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from identity.accounts.grants import ACCESS, Grant, get_grant, token_binding
from identity.accounts.leases import examine
from identity.accounts.scopes import revoke_scope
from identity.accounts.states import Account, find_account
from identity.audit import Act
from identity.audit.tables import audit
from identity.connect.consent_ledger import AnotherAccount, AnotherClient, Consent, Consented
from identity.connect.consents import CompletedConsent, connect_service, write_consent
from identity.connections.registry import add_connection, get_connection, rewrite_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.keys.vault import Vault
from identity.minting.service_credential import ServiceCredential
from identity.model import (
    AccountKey,
    AccountState,
    Credential,
    LeaseOutcome,
    LeaseRequest,
    PrincipalKind,
    ProviderConnection,
    RuledOut,
    Scope,
    TokenAnswer,
)
from identity.principals import ensure_agent, ensure_principal, ensure_tenant
from identity.secret import Secret
from identity.sql.sequence import lock_exclusive, next_number
from tests.identity.stores import EngineStore

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
ANNA = AccountKey(tenant="acme", connection="forge", principal="anna")
ROBOT = AccountKey(tenant="acme", connection="forge", principal="robot")


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, duration: timedelta) -> None:
        self.now += duration


@dataclass
class World:
    store: EngineStore
    url: str = "http://127.0.0.1:9"
    provider: str = "github"
    vault: Vault = field(default_factory=lambda: Vault({1: bytes(32)}, os.urandom))
    clock: Clock = field(default_factory=Clock)
    _count: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def id(self) -> str:
        return f"id-{next(self._count)}"

    def build(self) -> World:
        self.store.write(self._rows)
        return self

    def _rows(self, connection: Connection) -> None:
        now = self.clock.now
        ensure_tenant(connection, id="acme", name="Acme", now=now)
        ensure_agent(connection, id="bot", tenant=None, name="Bot", now=now)
        for name, kind in (("anna", PrincipalKind.USER), ("robot", PrincipalKind.SERVICE)):
            ensure_principal(connection, id=name, tenant="acme", kind=kind, name=name, now=now)
        owner = self.owner
        add_connection(connection, owner, now=now)
        secret = seal_secret(
            self.vault, owner, id="secret-1", name=CLIENT_SECRET, secret=Secret("client-canary"), now=now
        )
        add_secret(connection, secret)

    @property
    def owner(self) -> ProviderConnection:
        return ProviderConnection(
            id="forge",
            tenant=None,
            provider=self.provider,
            client_id="client",
            scopes=("read", "write"),
            api_url=self.url,
            authorize_url=f"{self.url}/authorize",
            token_url=f"{self.url}/token",
        )

    def number(self) -> int:
        return self.store.write(next_number)

    def consent(
        self, key: AccountKey = ANNA, *, lifetime: timedelta | None = timedelta(hours=1), consented: int | None = None
    ) -> str:
        """A person's consent, as a completed connect would store it; the account's id."""
        outcome = self.try_consent(key, lifetime=lifetime, consented=consented)
        assert isinstance(outcome, Consented)
        return outcome.account

    def try_consent(
        self,
        key: AccountKey = ANNA,
        *,
        lifetime: timedelta | None = timedelta(hours=1),
        consented: int | None = None,
        tokens: tuple[str, str] | None = None,
    ) -> Consented | AnotherAccount | AnotherClient | RuledOut:
        now = self.clock.now
        access, refresh = tokens or ("access-0", f"refresh-{self.generation(key)}")
        answer = TokenAnswer(
            access_token=Secret(access),
            refresh_token=Secret(refresh),
            expires_at=None if lifetime is None else now + lifetime,
            scopes=("read", "write"),
            token_type="bearer",
        )
        consent = Consent(
            id=self.id(),
            key=key,
            provider=self.provider,
            credential=Credential.AUTHORIZATION_CODE,
            consented=self.number() if consented is None else consented,
        )
        completed = CompletedConsent(
            consent=consent, answer=answer, scopes=answer.scopes, at=now, also=lambda connection, stored: None
        )
        return write_consent(self.store, self.vault, completed)

    def service(
        self,
        credential: Credential,
        *,
        token: str | None = None,
        external_id: str | None = None,
        also: Callable[[Connection, AccountKey], None] = lambda connection, key: None,
    ) -> str:
        """An admin's consent for the robot; the account's id."""
        return connect_service(
            self.store,
            self.vault,
            ROBOT,
            ServiceCredential(kind=credential, token=Secret(token) if token else None, external_id=external_id),
            Act(audit_id=self.id(), by="admin:eve", now=self.clock.now),
            id=self.id(),
            provider=self.provider,
            scopes=("read", "write"),
            also=also,
        ).account

    def revoke(self, scope: Scope) -> int:
        def write(connection: Connection) -> int:
            lock_exclusive(connection, scope)
            number = next_number(connection)
            revoke_scope(connection, scope, number, reason="told so", now=self.clock.now)
            return number

        return self.store.write(write)

    def examine(
        self,
        key: AccountKey = ANNA,
        *,
        accepted: int | None = None,
        scopes: frozenset[str] = frozenset(),
        refresh_early: bool = True,
        after_generation: int = 0,
    ) -> LeaseOutcome:
        request = LeaseRequest(
            tenant=key.tenant,
            connection=key.connection,
            agent="bot",
            principal=key.principal,
            accepted=self.number() if accepted is None else accepted,
            scopes=scopes,
            refresh_early=refresh_early,
            after_generation=after_generation,
            now=self.clock.now,
        )
        return self.store.read(lambda connection: examine(connection, request))

    def account(self, key: AccountKey = ANNA) -> Account:
        account = self.store.read(lambda connection: find_account(connection, key))
        assert account is not None
        return account

    def state(self, key: AccountKey = ANNA) -> AccountState:
        return self.account(key).state

    def grant(self, key: AccountKey = ANNA) -> Grant:
        account = self.account(key).id
        grant = self.store.read(lambda connection: get_grant(connection, account))
        assert grant is not None
        return grant

    def token(self, key: AccountKey = ANNA, name: str = ACCESS) -> str:
        """The stored token, opened."""
        grant, account = self.grant(key), self.account(key)
        sealed = grant.access_sealed if name == ACCESS else grant.refresh_sealed
        assert sealed is not None
        binding = token_binding(key.tenant, account.id, account.provider, name, grant.generation)
        return self.vault.open(sealed, binding).reveal()

    def generation(self, key: AccountKey = ANNA) -> int:
        account = self.store.read(lambda connection: find_account(connection, key))
        if account is None:
            return 0
        grant = self.store.read(lambda connection: get_grant(connection, account.id))
        return 0 if grant is None else grant.generation

    def move_token_endpoint(self) -> None:
        """Its issuer names another one, which is at the same provider."""

        def move(connection: Connection) -> None:
            owner = get_connection(connection, self.owner.id)
            rewrite_connection(connection, replace(owner, token_url=f"{owner.token_url}/v2"))

        self.store.write(move)

    def audited(self, kind: str) -> int:
        """How many audit rows of that kind there are."""
        count = select(func.count()).select_from(audit).where(audit.c.kind == kind)
        return self.store.read(lambda connection: connection.execute(count).scalar_one())
