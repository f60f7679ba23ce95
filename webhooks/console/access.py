"""Access control of the console: pages and acts by the roles of the signed-in person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from flask import g, request

from identity.console.roles import Role
from identity.console.sessions import Person
from identity.errors import BadInput
from pipeline.ledger.paging import Record
from pipeline.views.tenant_views import Tenants


class May(StrEnum):
    """Permissions that a role can grant."""

    SEE_WORK = "see jobs and approvals"
    SEE_MORE = "see more than jobs and approvals"
    WORK = "replay, cancel, resolve, reconnect and pause"
    REVOKE = "revoke"
    RESUME = "use a paused connection again"
    DECIDE = "decide approvals"


ROLES: Mapping[Role, frozenset[May]] = {
    Role.OWNER: frozenset(May),
    Role.OPERATOR: frozenset({May.SEE_WORK, May.SEE_MORE, May.WORK, May.REVOKE}),
    Role.APPROVER: frozenset({May.SEE_WORK, May.DECIDE}),
    Role.AUDITOR: frozenset({May.SEE_WORK, May.SEE_MORE}),
}

#: The permission each page and act needs. One that is missing here is denied to everyone.
NEEDS: Mapping[str, May] = {
    "overview": May.SEE_WORK,
    "find": May.SEE_WORK,
    "jobs": May.SEE_WORK,
    "job": May.SEE_WORK,
    "cancel_job": May.WORK,
    "replay_job": May.WORK,
    "resolve_job": May.WORK,
    "dead": May.SEE_WORK,
    "look_dead": May.WORK,
    "replay_dead": May.WORK,
    "deliveries": May.SEE_MORE,
    "delivery": May.SEE_MORE,
    "replay_delivery": May.WORK,
    "accounts": May.SEE_MORE,
    "account": May.SEE_MORE,
    "reconnect": May.WORK,
    "connections": May.SEE_MORE,
    "connection": May.SEE_MORE,
    "resume_connection": May.RESUME,
    "revocations": May.SEE_MORE,
    "revocation": May.SEE_MORE,
    "receipt": May.SEE_MORE,
    "retry_revocation": May.WORK,
    "stake": May.REVOKE,
    "revoke": May.REVOKE,
    "schedules": May.SEE_MORE,
    "pause_schedule": May.WORK,
    "resume_schedule": May.WORK,
    "audit": May.SEE_MORE,
    "queues": May.SEE_MORE,
    "approvals": May.SEE_WORK,
    "approval": May.SEE_WORK,
    "answer_approval": May.DECIDE,
}


class NotForYou(Exception):
    """Signed in, but not allowed; the message says what it takes."""


class NotThere(Exception):
    """Unknown, or another tenant's; the response does not say which."""


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """The signed-in person, for the current request."""

    person: Person
    csrf: str

    @property
    def who(self) -> str:
        """Identify the person by provider and subject: names are not unique."""
        return f"{self.person.via}:{self.person.issuer or ''}:{self.person.subject}"

    def may(self, need: May, tenant: str | None) -> bool:
        """True if they have the permission for *tenant*; None: for the platform."""
        return any(need in ROLES[one.role] and one.tenant in (None, tenant) for one in self.person.held)

    def tenants(self, need: May) -> tuple[str, ...] | None:
        """Return the tenants they have the permission for; None: every tenant, and the platform."""
        if self.may(need, None):
            return None
        return tuple(sorted({one.tenant for one in self.person.held if one.tenant and need in ROLES[one.role]}))

    def sees(self) -> Tenants:
        """Return the tenants they have any role at: no row of another is read for them."""
        held = {one.tenant for one in self.person.held}
        return Tenants(None if None in held else frozenset(tenant for tenant in held if tenant))

    def may_anywhere(self, need: May) -> bool:
        """True if they have the permission for at least one tenant."""
        return self.tenants(need) != ()


def visitor() -> Visitor:
    found: Visitor = g.visitor
    return found


def page_name() -> str:
    """Return the current page or act, as `NEEDS` names it."""
    return (request.endpoint or "").rpartition(".")[2]


def need_of(endpoint: str | None) -> May | None:
    """Return the permission that the endpoint's page or act needs."""
    return NEEDS.get((endpoint or "").rpartition(".")[2])


def need() -> May:
    """Return the permission of the current page or act; the door admits none that is missing from `NEEDS`."""
    return NEEDS[page_name()]


def seen_tenant() -> str | None:
    """Return the tenant that the current page shows; None: all of them. Raises NotForYou."""
    allowed, chosen = visitor().tenants(need()), request.values.get("tenant") or None
    if chosen is None:
        return None if allowed is None else allowed[0]
    if allowed is not None and chosen not in allowed:
        raise NotForYou(f"you have no role at tenant {chosen} that may {need()}")
    return chosen


def seen_tenants() -> tuple[str, ...] | None:
    """Return the tenants for a page that shows each separately: the chosen one, or all that they have a role at.

    None: all of them together. Raises NotForYou.
    """
    chosen = seen_tenant()
    if chosen is None or request.values.get("tenant"):
        return None if chosen is None else (chosen,)
    return visitor().tenants(need())


@contextmanager
def as_not_there() -> Iterator[None]:
    """Hide that a thing does not exist from anyone whose role does not cover every tenant.

    To them it looks like another tenant's.
    """
    try:
        yield
    except BadInput:
        if visitor().may(need(), None):
            raise
        raise NotThere from None


def seen(row: Record | None) -> Record:
    """Return *row* if it exists and the visitor may see or act on it. Raises NotThere, or NotForYou for an act."""
    if row is None:
        raise NotThere
    check(row["tenant_id"])
    return row


def check(tenant: str | None) -> None:
    """Check the permission of the current page or act for *tenant*. Raises NotThere, or NotForYou for an act."""
    if visitor().may(need(), tenant):
        return
    if request.method == "POST" and visitor().may(May.SEE_MORE, tenant):
        raise NotForYou(f"your role may not {need()}")
    raise NotThere
