"""Domain types of capabilities beyond the token: audiences, signing algorithms and records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from identity.capability.verifier import Capability, Limit
from identity.model import AccountKey, Scope, ScopeKind, scopes_over

#: Maximum length of the chain of actors: the agent and two services that passed the capability on.
DEEPEST = 3


class Algorithm(StrEnum):
    """The signature algorithm of a capability."""

    ED25519 = "Ed25519"  # RFC 9864
    ES256 = "ES256"  # for gateways that support no other


class Outcome(StrEnum):
    """The reason why a capability was closed before it expired."""

    EFFECT = "effect"  # the step it was for is done
    NO_EFFECT = "no_effect"  # its request had no effect; the next one gets a new capability
    SUPERSEDED = "superseded"  # another was issued for the same step


@dataclass(frozen=True, kw_only=True)
class Audience:
    """A service that accepts capabilities."""

    id: str
    uri: str  # the `aud` of its tokens
    tenant: str | None  # None: it accepts capabilities of any tenant
    connection: str | None  # through which steps reach it; None: only other audiences pass tokens on to it
    algorithm: Algorithm
    passes_to: tuple[str, ...]  # audiences for which it may exchange tokens


@dataclass(frozen=True, kw_only=True)
class CapabilityRequest:
    """The capability that the opening of a step requests."""

    id: str  # for a new capability
    audience: Audience
    tenant: str
    connection: str
    agent: str
    principal: str  # who asked
    accepted: int  # the job's ledger number
    job: str
    step: str
    action: str
    resource: str
    limit: Limit | None
    request_sha256: str
    approved_by: tuple[str, ...] = ()
    lifetime: timedelta = timedelta(seconds=120)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A recorded capability, with the facts by which a spend is decided."""

    capability: Capability
    audience: str  # its id
    connection: str
    agent: str
    accepted: int
    parent: str | None
    spent_sha256: str | None
    exchanged_sha256: str | None
    closed_at: datetime | None

    @property
    def scope_list(self) -> tuple[Scope, ...]:
        """The five scopes on which it depends."""
        return scopes_of(self.capability, connection=self.connection, agent=self.agent)


def scopes_of(capability: Capability, *, connection: str, agent: str) -> tuple[Scope, ...]:
    """Return the five scopes of a capability issued to *agent* for a step through *connection*."""
    key = AccountKey(tenant=capability.tenant, connection=connection, principal=capability.subject)
    return scopes_over(key, agent=agent)


def approvers_of(capability: Capability) -> tuple[Scope, ...]:
    """Return the user scopes of its approvers."""
    return tuple(Scope(kind=ScopeKind.USER, key=approver) for approver in capability.approved_by)
