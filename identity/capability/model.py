"""The words of capabilities beyond what a token itself says: audiences, keys' algorithms, and what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from identity.capability.verifier import Capability, Limit
from identity.model import AccountKey, Scope, ScopeKind, scopes_over

#: How many actors a chain may have: the agent, who was given leave by it, and one more.
DEEPEST = 3


class Algorithm(StrEnum):
    """What a capability is signed with."""

    ED25519 = "Ed25519"  # RFC 9864
    ES256 = "ES256"  # for gateways that know no other


class Outcome(StrEnum):
    """Why a capability is of no use any more though it has not expired."""

    EFFECT = "effect"  # the step it was for is done
    NO_EFFECT = "no_effect"  # the request it was for did nothing; the next one gets another
    SUPERSEDED = "superseded"  # another was issued for the same step


@dataclass(frozen=True, kw_only=True)
class Audience:
    """A service that takes capabilities: what they call it, and how it proves itself to us."""

    id: str
    uri: str  # the tokens' `aud`
    tenant: str | None  # None: any tenant's capabilities may be for it
    connection: str | None  # the provider connection through which steps reach it; None: only others pass them on
    algorithm: Algorithm
    passes_to: tuple[str, ...]  # the audiences that it may exchange a token for


@dataclass(frozen=True, kw_only=True)
class CapabilityRequest:
    """What an opening wants a capability for."""

    id: str  # of a new one
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
    """A capability as it is recorded, with what a spend is judged by."""

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
        """The five scopes it depends on."""
        return scopes_of(self.capability, connection=self.connection, agent=self.agent)


def scopes_of(capability: Capability, *, connection: str, agent: str) -> tuple[Scope, ...]:
    """The five scopes of a capability that *agent* was given for a step through *connection*."""
    key = AccountKey(tenant=capability.tenant, connection=connection, principal=capability.subject)
    return scopes_over(key, agent=agent)


def approvers_of(capability: Capability) -> tuple[Scope, ...]:
    """The scopes of those whose yes it was issued on."""
    return tuple(Scope(kind=ScopeKind.USER, key=approver) for approver in capability.approved_by)
