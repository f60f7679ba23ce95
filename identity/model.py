"""The words of identity: principals, accounts, grants, leases and the scopes a revocation can name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from identity.secret import Secret


class PrincipalKind(StrEnum):
    """Who a principal is: a person, or the platform acting for a tenant."""

    USER = "user"
    SERVICE = "service"


class AccessPattern(StrEnum):
    """How authority is obtained. A step is delegated, service or capability; *hybrid* tags a job that mixes."""

    DELEGATED = "delegated"
    SERVICE = "service"
    HYBRID = "hybrid"
    CAPABILITY = "capability"


class Effect(StrEnum):
    """What an action does to the upstream."""

    READ = "read"
    WRITE = "write"
    HIGH_RISK = "high_risk"


class Credential(StrEnum):
    """How the access tokens of an account are obtained."""

    AUTHORIZATION_CODE = "authorization_code"  # a user's consent; renewed by refresh token
    CLIENT_CREDENTIALS = "client_credentials"  # RFC 6749 §4.4; minted anew
    JWT_BEARER = "jwt_bearer"  # RFC 7523 §2.1, a key signs an assertion; minted anew
    INSTALLATION = "installation"  # a GitHub App installation token; minted anew
    ROTATING = "rotating"  # a service's token that an admin gave with its refresh token: a bot's, where they rotate
    STATIC = "static"  # a bot token or key that does not expire


# Their tokens come from a key or secret of the client's, so one that is lost costs nothing but another.
MINTED = frozenset({Credential.CLIENT_CREDENTIALS, Credential.JWT_BEARER, Credential.INSTALLATION})


class AccountState(StrEnum):
    """The state of a connected account."""

    # `identity.accounts.states.MOVES` says who may move it where.
    PENDING = "pending"  # inserted for a job that parks, a consent, or a refused connect's tokens
    ACTIVE = "active"  # a completed consent
    NEEDS_RECONNECT = "needs_reconnect"  # the coordinator: the grant is dead or a rotation's outcome unknown
    SUSPENDED = "suspended"  # the provider, reversibly
    REVOKED = "revoked"  # an explicit revocation


class ReconnectCause(StrEnum):
    """Why an account needs its person; beside it stands a sentence for people, which nothing reads."""

    DEAD = "dead"  # the provider takes its credential no more
    UNKNOWN = "unknown"  # the outcome of a refresh cannot be found out: its late answer brings the account back
    PERSON = "person"  # the provider wants the person themselves: an operator may have it asked without them
    EXPIRED = "expired"  # its token has ended, and nothing renews it
    REFUSED = "refused"  # the provider's API refused a token that was just renewed


class ScopeKind(StrEnum):
    """What a revocation can name, in the order in which their locks are taken."""

    TENANT = "tenant"
    CONNECTION = "connection"
    AGENT = "agent"
    USER = "user"
    ACCOUNT = "account"


LOCK_ORDER: tuple[ScopeKind, ...] = tuple(ScopeKind)


@dataclass(frozen=True, kw_only=True, order=True)
class Scope:
    """One tenant, provider connection, agent, user or account."""

    kind: ScopeKind
    key: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.key}"


@dataclass(frozen=True, kw_only=True)
class AccountKey:
    """What names an account before its row exists: tenant, provider connection and principal."""

    tenant: str
    connection: str
    principal: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.connection}/{self.principal}"

    @classmethod
    def parse(cls, text: str) -> AccountKey:
        """The key whose text form that is: no id holds a slash (`principals.checked_id`)."""
        tenant, connection, principal = text.split("/")
        return cls(tenant=tenant, connection=connection, principal=principal)

    @classmethod
    def of(cls, row: Any) -> AccountKey:
        """The key that a row of any table with these three columns names, as the database gives it or as a mapping."""
        if isinstance(row, Mapping):
            return cls(tenant=row["tenant_id"], connection=row["connection_id"], principal=row["principal_id"])
        return cls(tenant=row.tenant_id, connection=row.connection_id, principal=row.principal_id)

    @property
    def scope(self) -> Scope:
        return Scope(kind=ScopeKind.ACCOUNT, key=str(self))

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The four scopes that a grant of the account depends on; its own is the last."""
        return scopes_over(self)


def scopes_over(key: AccountKey, *, agent: str | None = None) -> tuple[Scope, ...]:
    """What a grant depends on, and with *agent* a step: the account's own scope is the last.

    Of several that rule something out, the first is named. Locks are taken in order whatever this one is.
    """
    return (
        Scope(kind=ScopeKind.TENANT, key=key.tenant),
        Scope(kind=ScopeKind.CONNECTION, key=key.connection),
        *(() if agent is None else (Scope(kind=ScopeKind.AGENT, key=agent),)),
        Scope(kind=ScopeKind.USER, key=key.principal),
        key.scope,
    )


def scopes_of_agent(tenant: str, agent: str) -> tuple[Scope, ...]:
    """What everything depends on that an agent does for a tenant, whoever it acts for."""
    return (Scope(kind=ScopeKind.TENANT, key=tenant), Scope(kind=ScopeKind.AGENT, key=agent))


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A user or service of one tenant."""

    id: str
    tenant: str
    kind: PrincipalKind
    name: str


@dataclass(frozen=True, kw_only=True)
class ProviderConnection:
    """A client registration with a provider; one tenant's, or (tenant None) the platform's."""

    id: str
    tenant: str | None
    provider: str
    client_id: str
    scopes: tuple[str, ...]
    api_url: str  # base URL of the upstream API
    authorize_url: str
    token_url: str
    config: dict[str, str] = field(default_factory=dict)  # provider-specific and not secret: app id, issuer …

    @property
    def people(self) -> str:
        """The name under which aliases know its users: the provider's, unless it numbers its users by itself."""
        return self.config.get("people", self.provider)

    @property
    def confirms(self) -> bool:
        """Whether each connect through it has to be confirmed by the product that made the link."""
        return self.config.get("confirm") == "true"


@dataclass(frozen=True, kw_only=True)
class TokenAnswer:
    """What a token endpoint granted, parsed. `expires_at` counts from the start of the request."""

    access_token: Secret
    refresh_token: Secret | None  # None: the provider sent none, the old one stays
    expires_at: datetime | None  # None: the provider named no lifetime
    scopes: tuple[str, ...]
    token_type: str
    #: All that an installation's token is for, as owner/name, or "" for one that cannot be read; none: it does not say.
    repositories: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LeaseRequest:
    """What a step asks for when it opens."""

    tenant: str
    connection: str
    agent: str
    principal: str
    accepted: int  # the job's ledger number
    scopes: frozenset[str]  # required by the action
    refresh_early: bool = True  # before the end, as the provider's row says; False: what still lives will do
    after_generation: int = 0  # a token of this generation or an older one was refused upstream
    now: datetime | None = None  # None: the database's clock

    @property
    def account_key(self) -> AccountKey:
        return AccountKey(tenant=self.tenant, connection=self.connection, principal=self.principal)

    @property
    def scope_list(self) -> tuple[Scope, ...]:
        """The five scopes the step depends on."""
        return scopes_over(self.account_key, agent=self.agent)


@dataclass(frozen=True, kw_only=True)
class Leased:
    """A step's right to one token of one generation. The token is still sealed: it is opened after the commit."""

    account: str
    generation: int
    provider: str
    sealed_token: bytes
    token_type: str
    expires_at: datetime | None
    consented: int  # ledger number at which the consent began that the token comes from
    first_use: bool = False  # nobody used this generation before: `grants.note_use` is to be told


@dataclass(frozen=True, kw_only=True)
class NeedsRefresh:
    """The token is too near its end (or was refused upstream): refresh, then open again."""

    account: str
    generation: int


@dataclass(frozen=True, kw_only=True)
class NeedsConsent:
    """A person must connect, reconnect or widen the account before the step can open."""

    account: str | None  # None: there is no row yet
    state: AccountState
    missing_scopes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RuledOut:
    """The rule forbids it for good: a scope is stopped, or was revoked after the number that is asked about."""

    scope: Scope
    reason: str


LeaseOutcome = Leased | NeedsRefresh | NeedsConsent | RuledOut
