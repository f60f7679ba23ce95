"""Installations of a provider connection: whose they are, as an operator or the provider has said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, false, or_, select, update

from identity.connections.registry import get_connection
from identity.model import AccountKey, AccountState, PrincipalKind
from identity.sql.rows import insert_new
from identity.tables import accounts, installations, places_seen, principals, provider_connections

ANYWHERE = ""  # where people connected before places were kept, and services whose place nobody said


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Whose installations, workspaces or organizations are, and by which ids they are listed."""

    tenants: frozenset[str]
    listed: frozenset[str] = frozenset()


def add_installation(connection: Connection, *, owner: str, external_id: str, tenant: str, now: datetime) -> bool:
    """Say whose an installation of the platform's connection, or of a tenant's own, is; False if that was said.

    A tenant's own takes no deliveries of others from then on, for good: see `takes_any`.
    """
    row = {"connection_id": owner, "external_id": external_id, "tenant_id": tenant, "created_at": now}
    connection.execute(update(provider_connections).where(_takes_any(owner)).values(only_listed=True))
    note_places(connection, owner, (external_id,))
    return insert_new(connection, installations, row)


def note_places(connection: Connection, owner: str, external_ids: Iterable[str]) -> None:
    """Somebody's credential may be of there from now on, whatever becomes of the listing."""
    for external_id in sorted(frozenset(external_ids)):
        insert_new(connection, places_seen, {"connection_id": owner, "external_id": external_id})


def note_service(connection: Connection, owner: str, tenant: str, external_id: str | None) -> None:
    """A service's credential is where whoever gives it says, or where something is listed for its tenant.

    It may be anywhere where nothing is: what was said may be the id of its bot, by which no stranger's place is called.
    """
    if external_id is not None:
        note_places(connection, owner, (external_id,))
    if not has_listing(connection, owner, tenant):
        note_places(connection, owner, (ANYWHERE,))


def were_seen(connection: Connection, owner: str, external_ids: Iterable[str]) -> bool:
    """Whether anybody may have connected in one of these places."""
    columns = places_seen.c
    named = select(columns.external_id).where(
        columns.connection_id == owner, columns.external_id.in_({*external_ids, ANYWHERE})
    )
    return connection.execute(named.limit(1)).first() is not None


def takes_any(connection: Connection, owner: str) -> bool:
    """Whether it is a tenant's own connection that has never listed an installation, so that any is the tenant's."""
    return connection.execute(select(provider_connections.c.id).where(_takes_any(owner))).first() is not None


def _takes_any(owner: str) -> ColumnElement[bool]:
    columns = provider_connections.c
    return (columns.id == owner) & columns.tenant_id.is_not(None) & (columns.only_listed == false())


def note_organization(connection: Connection, *, owner: str, workspace: str, organization: str) -> None:
    """Remember which organization has the app that this workspace was listed for: its end names no workspace."""
    columns = installations.c
    listed = update(installations).where(columns.connection_id == owner, columns.external_id == workspace)
    connection.execute(listed.values(organization=organization))


def whose_installations(
    connection: Connection, owner: str, external_ids: Iterable[str], *, within: str | None
) -> Listing:
    """Whose these installations, workspaces or organizations are; an organization's are its listed workspaces too.

    *within* is the organization whose app it may have been: nobody said, so the end is the organization's as well. A
    tenant's own connection that lists no installation is that tenant's wherever it is installed, also where the last
    one was taken back: in which workspace somebody consented is not kept, and no end may be lost.
    """
    ids, columns = frozenset(external_ids), installations.c
    named = ids if within is None else ids | {within}
    ours = select(columns.tenant_id, columns.external_id).where(columns.connection_id == owner)
    found = connection.execute(ours.where(or_(columns.external_id.in_(named), columns.organization.in_(named)))).all()
    if found:
        return Listing(
            tenants=frozenset(row.tenant_id for row in found), listed=frozenset(row.external_id for row in found)
        )
    if not ids or connection.execute(ours.limit(1)).first() is not None:
        return Listing(tenants=frozenset())
    tenant = get_connection(connection, owner).tenant
    return Listing(tenants=frozenset() if tenant is None else frozenset({tenant}))


def listed_as(connection: Connection, owner: str, external_ids: Iterable[str]) -> dict[str, str]:
    """Whose each of these is, of those that are listed."""
    columns = installations.c
    said = select(columns.external_id, columns.tenant_id).where(
        columns.connection_id == owner, columns.external_id.in_(frozenset(external_ids))
    )
    return {row.external_id: row.tenant_id for row in connection.execute(said)}


def has_listing(connection: Connection, owner: str, tenant: str) -> bool:
    """Whether anything of this connection is listed for the tenant."""
    columns = installations.c
    listed = select(columns.external_id).where(columns.connection_id == owner, columns.tenant_id == tenant)
    return connection.execute(listed.limit(1)).first() is not None


def tenant_of_installation(connection: Connection, owner: str, external_id: str) -> str | None:
    """Whose this one is, as it was said; None: nobody's."""
    columns = installations.c
    said = select(columns.tenant_id).where(columns.connection_id == owner, columns.external_id == external_id)
    return connection.execute(said).scalar_one_or_none()


def acting_through(
    connection: Connection, owner: str, external_id: str, *, tenant: str, of_app: bool
) -> list[AccountKey]:
    """The tenant's accounts whose end a signal would say by this installation alone, but for revoked ones.

    That of an app (*of_app*) is its service's, by its id: users' external ids are of people. A workspace is everybody's
    who has consented there, as long as the tenant has no other one: of which of two somebody is was not said.
    """
    columns = accounts.c
    acting = (columns.external_id == external_id) & (principals.c.kind == PrincipalKind.SERVICE)
    if not of_app and not _has_another(connection, owner, external_id, tenant=tenant):
        acting |= columns.state != AccountState.PENDING
    found = (
        select(columns.principal_id)
        .join(principals, principals.c.id == columns.principal_id)
        .where(
            columns.connection_id == owner,
            columns.tenant_id == tenant,
            columns.state != AccountState.REVOKED,
            acting,
        )
        .order_by(columns.principal_id)
    )
    ids = connection.execute(found).scalars()
    return [AccountKey(tenant=tenant, connection=owner, principal=principal) for principal in ids]


def is_last_listed(connection: Connection, owner: str, external_id: str) -> bool:
    """Whether this connection lists no other one, anybody's."""
    columns = installations.c
    others = select(columns.external_id).where(columns.connection_id == owner, columns.external_id != external_id)
    return connection.execute(others.limit(1)).first() is None


def _has_another(connection: Connection, owner: str, external_id: str, *, tenant: str) -> bool:
    columns = installations.c
    others = (columns.connection_id == owner) & (columns.tenant_id == tenant) & (columns.external_id != external_id)
    return connection.execute(select(columns.external_id).where(others).limit(1)).first() is not None


def remove_installation(connection: Connection, *, owner: str, external_id: str, tenant: str | None = None) -> bool:
    """Forget an installation: one that the provider has deleted, or *tenant's*, which an operator takes back.

    False if there is none, or it is another's.
    """
    columns = installations.c
    gone = delete(installations).where(columns.connection_id == owner, columns.external_id == external_id)
    if tenant is not None:
        gone = gone.where(columns.tenant_id == tenant)
    return connection.execute(gone).rowcount == 1
