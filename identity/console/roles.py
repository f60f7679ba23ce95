"""Console roles, of one tenant or of all, derived from the claims of a sign-in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from identity import audit
from identity.audit import Act, AsWhom
from identity.console.tables import console_roles, console_sessions
from identity.errors import BadInput
from identity.tables import tenants

SEPARATOR = "@"  # between role and tenant in the roles claim: `operator@acme`


class Role(StrEnum):
    """The roles of the console; docs/howto/console.md has the table."""

    OWNER = "owner"  # everything, including reopening stopped scopes
    OPERATOR = "operator"  # daily work: replay, cancel, resolve, reconnect, revoke
    APPROVER = "approver"  # decide approvals
    AUDITOR = "auditor"  # see everything, change nothing


@dataclass(frozen=True, kw_only=True)
class Held:
    """One role that a person has."""

    role: Role
    tenant: str | None  # None: every tenant and the platform


def roles_of(connection: Connection, claims: Mapping[str, Any], *, roles_claim: str | None) -> tuple[Held, ...]:
    """Return the roles of a person with *claims*: those of the table, and those that *roles_claim* names.

    Runs in the transaction that signs the person in. A concurrent `disallow` waits for it and then ends the session.
    """
    everybodys = select(console_roles).order_by(console_roles.c.id)
    rows = connection.execute(everybodys.with_for_update(read=True)).all()
    held = {Held(role=Role(row.role), tenant=row.tenant_id) for row in rows if row.value in _values(claims, row.claim)}
    if roles_claim is not None:
        held |= set(_named(_values(claims, roles_claim)))
    return tuple(sorted(held, key=lambda one: (one.tenant or "", one.role)))


def _values(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return a claim's values; none for an unverified e-mail address (OpenID Connect Core §5.1)."""
    if name == "email" and claims.get("email_verified") is not True:
        return frozenset()
    said = claims.get(name)
    return frozenset(one for one in (said if isinstance(said, list) else [said]) if isinstance(one, str))


def _named(values: frozenset[str]) -> Iterator[Held]:
    known = set(Role)
    for value in values:
        role, separator, tenant = value.partition(SEPARATOR)
        if role in known and bool(separator) is bool(tenant):
            yield Held(role=Role(role), tenant=tenant or None)


def allow(connection: Connection, act: Act, *, id: str, claim: str, value: str, role: Role, tenant: str | None) -> None:
    """Grant a role to everybody who signs in with that claim. Raises BadInput."""
    if tenant is not None and connection.execute(select(tenants.c.id).where(tenants.c.id == tenant)).first() is None:
        raise BadInput(f"there is no tenant {tenant}: `aswhom tenants list` shows them")
    columns = console_roles.c
    whose = columns.tenant_id.is_(None) if tenant is None else columns.tenant_id == tenant
    same = select(columns.id).where(columns.claim == claim, columns.value == value, columns.role == role, whose)
    if (known := connection.execute(same).scalar()) is not None:
        raise BadInput(f"{claim} {value} has that role already: {known}")
    row = {"id": id, "claim": claim, "value": value, "role": role, "tenant_id": tenant, "made_by": act.by}
    connection.execute(insert(console_roles), {**row, "created_at": act.now})
    _record(connection, "console.allowed", f"{claim} {value}", role, tenant, act)


def disallow(connection: Connection, id: str, act: Act) -> int:
    """Take a role back and end all OpenID sessions; return how many. Raises BadInput."""
    gone = delete(console_roles).where(console_roles.c.id == id).returning(*console_roles.c)
    row = connection.execute(gone).one_or_none()
    if row is None:
        raise BadInput(f"there is no role {id}: `aswhom console roles` shows them")
    who = f"{row.claim} {row.value}"
    _record(connection, "console.disallowed", who, row.role, row.tenant_id, act)
    # The sessions affected are not known: a session stores roles, not claims.
    return connection.execute(delete(console_sessions).where(console_sessions.c.via == "openid")).rowcount


def _record(connection: Connection, kind: str, who: str, role: str, tenant: str | None, act: Act) -> None:
    audit.record_act(connection, kind, AsWhom(tenant=tenant), act, outcome=str(role), detail={"who": who})
