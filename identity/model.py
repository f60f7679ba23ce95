"""The vocabulary of identity: principals, accounts, grants, leases and the scopes a revocation can name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from identity.secret import Secret


class PrincipalKind(StrEnum):
    """The kind of a principal: a person, or the platform acting for a tenant."""

    USER = "user"
    SERVICE = "service"


class AccessPattern(StrEnum):
    """The source of authority: a step is delegated, service or capability; *hybrid* marks a job that mixes them."""

    DELEGATED = "delegated"
    SERVICE = "service"
    HYBRID = "hybrid"
    CAPABILITY = "capability"


class Effect(StrEnum):
    """The effect of an action at the upstream."""

    READ = "read"
    WRITE = "write"
    HIGH_RISK = "high_risk"


class Credential(StrEnum):
    """The way the access tokens of an account are obtained."""

    AUTHORIZATION_CODE = "authorization_code"  # a user's consent; renewed by refresh token
    CLIENT_CREDENTIALS = "client_credentials"  # RFC 6749 §4.4; minted afresh
    JWT_BEARER = "jwt_bearer"  # RFC 7523 §2.1, a key signs an assertion; minted afresh
    INSTALLATION = "installation"  # a GitHub App installation token; minted afresh
    # a service's token that an admin supplied with its refresh token, such as a bot's where bot tokens rotate
    ROTATING = "rotating"
    STATIC = "static"  # a bot token or key that does not expire


# Tokens minted from a key or secret of the client: a lost one is simply minted again.
MINTED = frozenset({Credential.CLIENT_CREDENTIALS, Credential.JWT_BEARER, Credential.INSTALLATION})


class AccountState(StrEnum):
    """The state of a connected account."""

    # `identity.accounts.states.MOVES` lists the transitions and who may make them.
    PENDING = "pending"  # inserted for a job that parks, a consent, or a refused connect's tokens
    ACTIVE = "active"  # a completed consent
    NEEDS_RECONNECT = "needs_reconnect"  # the coordinator: the grant is dead or a rotation's outcome unknown
    SUSPENDED = "suspended"  # the provider, reversibly
    REVOKED = "revoked"  # an explicit revocation


class ReconnectCause(StrEnum):
    """The reason why an account needs its person. A sentence for people is stored beside it and never parsed."""

    DEAD = "dead"  # the provider no longer accepts its credential
    UNKNOWN = "unknown"  # the outcome of a refresh is unknown; its late answer brings the account back
    PERSON = "person"  # the provider wants the person; an operator may have the token requested again without them
    EXPIRED = "expired"  # its token has expired and cannot be renewed
    REFUSED = "refused"  # the provider's API refused a freshly renewed token


class ScopeKind(StrEnum):
    """The things a revocation can name, in the order in which their locks are taken."""

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
    """The name of an account before its row exists: tenant, provider connection and principal."""

    tenant: str
    connection: str
    principal: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.connection}/{self.principal}"

    @classmethod
    def parse(cls, text: str) -> AccountKey:
        """Parse the text form of a key; no id holds a slash (`principals.checked_id`)."""
        tenant, connection, principal = text.split("/")
        return cls(tenant=tenant, connection=connection, principal=principal)

    @classmethod
    def of(cls, row: Any) -> AccountKey:
        """Return the key named by a row, or a mapping, that has these three columns."""
        if isinstance(row, Mapping):
            return cls(tenant=row["tenant_id"], connection=row["connection_id"], principal=row["principal_id"])
        return cls(tenant=row.tenant_id, connection=row.connection_id, principal=row.principal_id)

    @property
    def scope(self) -> Scope:
        return Scope(kind=ScopeKind.ACCOUNT, key=str(self))

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The four scopes that a grant of the account depends on; the account's own is last."""
        return scopes_over(self)


def scopes_over(key: AccountKey, *, agent: str | None = None) -> tuple[Scope, ...]:
    """Return the scopes that a grant depends on or, with *agent*, a step; the account's own is last.

    When several of them prohibit something, the first is the one that is reported. The order of locks does not depend
    on this order.
    """
    return (
        Scope(kind=ScopeKind.TENANT, key=key.tenant),
        Scope(kind=ScopeKind.CONNECTION, key=key.connection),
        *(() if agent is None else (Scope(kind=ScopeKind.AGENT, key=agent),)),
        Scope(kind=ScopeKind.USER, key=key.principal),
        key.scope,
    )


def scopes_of_agent(tenant: str, agent: str) -> tuple[Scope, ...]:
    """Return the scopes that everything an agent does for a tenant depends on, whichever principal it acts for."""
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
    """A client registration with a provider: one tenant's, or the platform's if tenant is None."""

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
        """The name under which aliases know its users: the provider's, or its own where it numbers its users itself."""
        return self.config.get("people", self.provider)

    @property
    def confirms(self) -> bool:
        """True if each connect through it must be confirmed by the product that made the link."""
        return self.config.get("confirm") == "true"


@dataclass(frozen=True, kw_only=True)
class TokenAnswer:
    """A token endpoint's grant, parsed. `expires_at` counts from the start of the request."""

    access_token: Secret
    refresh_token: Secret | None  # None: the provider sent none, the old one stays
    expires_at: datetime | None  # None: the provider named no lifetime
    scopes: tuple[str, ...]
    token_type: str
    #: Full names (owner/name) of the repositories an installation's token is limited to, "" for an unreadable one.
    #: Empty: the answer does not say.
    repositories: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LeaseRequest:
    """The lease that a step asks for when it opens."""

    tenant: str
    connection: str
    agent: str
    principal: str
    accepted: int  # the job's ledger number
    scopes: frozenset[str]  # required by the action
    refresh_early: bool = True  # refresh ahead of expiry, by the provider's margin; False: any unexpired token will do
    after_generation: int = 0  # the upstream refused a token of this generation or an older one
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
    """A step's right to one token of one generation. The token is still sealed and is opened after the commit."""

    account: str
    generation: int
    provider: str
    sealed_token: bytes
    token_type: str
    expires_at: datetime | None
    consented: int  # ledger number at which the consent behind the token began
    first_use: bool = False  # first lease of this generation: tell `grants.note_use`


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
    """The rule forbids it for good: a scope is stopped, or was revoked after the number in question."""

    scope: Scope
    reason: str


LeaseOutcome = Leased | NeedsRefresh | NeedsConsent | RuledOut
