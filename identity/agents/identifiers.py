"""Identifiers of whom an agent acts for: a user, with their grant; a tenant or workspace, as the service.

`ada`, `acme` and `T0001` are looked up as a user, the tenant and a workspace of the caller's own tenant; `user:ada`,
`tenant:acme` and `workspace:T0001` say which is meant. Other tenants' names are unknown here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, or_, select

from identity.errors import BadInput
from identity.model import Credential, Principal, PrincipalKind, ProviderConnection
from identity.principals import service_principal
from identity.tables import accounts, installations, principals

T = TypeVar("T")

_KNOWN = "a user is known once a connect link was made for them, by POST /v1/connect-links or `aswhom connect link`"

USER, TENANT, WORKSPACE = "user", "tenant", "workspace"


class UnknownIdentifier(BadInput):
    """No principal has this name; for a user, perhaps no connect link was made for them yet."""


@dataclass(frozen=True, kw_only=True)
class Identified:
    """The principal that an identifier names, and its workspace of a provider connection if it names one."""

    principal: Principal
    workspace: tuple[str, str] | None = None  # provider connection, and the provider's id of the workspace


def identify(connection: Connection, tenant: str, identifier: str) -> Identified:
    """Resolve *identifier* in *tenant*. Raises UnknownIdentifier, and BadInput if it is ambiguous."""
    kind, colon, rest = identifier.partition(":")
    kinds: tuple[str, ...] = (USER, TENANT, WORKSPACE)
    name = identifier
    if colon and kind in kinds:
        kinds, name = (kind,), rest
    found: list[Identified] = []
    if USER in kinds:
        found += [Identified(principal=one) for one in _users(connection, tenant, name)]
    service = service_principal(connection, tenant)
    if TENANT in kinds and name in (tenant, service.id):
        found.append(Identified(principal=service))
    if WORKSPACE in kinds:
        found += _workspaces(connection, service, name)
    say = "user:…, tenant:… or workspace:…, and a user by their id"
    return _only(found, tenant, identifier, of="user, workspace or other principal", say=say)


def user_named(connection: Connection, tenant: str, identifier: str) -> Principal:
    """Return the user of *tenant* named by *identifier*. Raises UnknownIdentifier, and BadInput if it is ambiguous."""
    found = _users(connection, tenant, identifier.removeprefix(f"{USER}:"))
    return _only(found, tenant, identifier, of="user", say="which by their id")


def _only(found: Sequence[T], tenant: str, identifier: str, *, of: str, say: str) -> T:
    if not found:
        raise UnknownIdentifier(f"tenant {tenant} has no {of} {identifier!r}: {_KNOWN}")
    if len(found) > 1:
        raise BadInput(f"{identifier!r} could be several: say {say}")
    return found[0]


def fits(connection: Connection, identified: Identified, owner: ProviderConnection) -> None:
    """Raise BadInput for a workspace that the service does not act in through *owner*."""
    if identified.workspace is None:
        return
    through, external = identified.workspace
    if through != owner.id:
        raise BadInput(f"workspace {external} is reached by {through}, and this tool goes through {owner.id}")
    acts_in = connection.execute(
        select(accounts.c.external_id).where(
            accounts.c.connection_id == owner.id,
            accounts.c.tenant_id == identified.principal.tenant,
            accounts.c.principal_id == identified.principal.id,
            accounts.c.credential == Credential.INSTALLATION,  # a static token's id may be its bot's
        )
    ).scalar_one_or_none()
    if acts_in not in (None, external):
        raise BadInput(f"the service acts in workspace {acts_in} through {owner.id}, not in {external}")


def _users(connection: Connection, tenant: str, name: str) -> Sequence[Principal]:
    rows = connection.execute(
        select(principals).where(
            principals.c.tenant_id == tenant,
            principals.c.kind == PrincipalKind.USER,
            or_(principals.c.id == name, principals.c.name == name),
        )
    ).all()
    exact = [row for row in rows if row.id == name] or rows
    return [Principal(id=row.id, tenant=row.tenant_id, kind=PrincipalKind(row.kind), name=row.name) for row in exact]


def _workspaces(connection: Connection, service: Principal, external_id: str) -> Sequence[Identified]:
    rows = connection.execute(
        select(installations.c.connection_id).where(
            installations.c.tenant_id == service.tenant, installations.c.external_id == external_id
        )
    ).scalars()
    return [Identified(principal=service, workspace=(through, external_id)) for through in rows]
