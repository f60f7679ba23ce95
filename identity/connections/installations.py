"""Installations of a provider connection, and the tenants an operator or the provider assigned them to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, false, or_, select, update

from identity.connections.registry import get_connection
from identity.model import AccountKey, AccountState, PrincipalKind
from identity.sql.rows import insert_new
from identity.tables import accounts, installations, places_seen, principals, provider_connections

ANYWHERE = ""  # where people connected before places were stored, and services of unknown place


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The tenants that installations, workspaces or organizations belong to, and the ids they are listed by."""

    tenants: frozenset[str]
    listed: frozenset[str] = frozenset()


def add_installation(connection: Connection, *, owner: str, external_id: str, tenant: str, now: datetime) -> bool:
    """Assign an installation of the platform's connection, or a tenant's own, to *tenant*; False if it is assigned.

    From then on a tenant's own connection permanently refuses deliveries for unlisted ones: see `takes_any`.
    """
    row = {"connection_id": owner, "external_id": external_id, "tenant_id": tenant, "created_at": now}
    connection.execute(update(provider_connections).where(_takes_any(owner)).values(only_listed=True))
    note_places(connection, owner, (external_id,))
    return insert_new(connection, installations, row)


def note_places(connection: Connection, owner: str, external_ids: Iterable[str]) -> None:
    """Record that somebody's credential may belong to these places, whatever becomes of their listing."""
    for external_id in sorted(frozenset(external_ids)):
        insert_new(connection, places_seen, {"connection_id": owner, "external_id": external_id})


def note_service(connection: Connection, owner: str, tenant: str, external_id: str | None) -> None:
    """Record a service's place: the one an admin gave, and any place if nothing is listed for its tenant.

    Any place, because the id given may be that of its bot, which does not identify a place.
    """
    if external_id is not None:
        note_places(connection, owner, (external_id,))
    if not has_listing(connection, owner, tenant):
        note_places(connection, owner, (ANYWHERE,))


def were_seen(connection: Connection, owner: str, external_ids: Iterable[str]) -> bool:
    """True if anybody may have connected in one of these places."""
    columns = places_seen.c
    named = select(columns.external_id).where(
        columns.connection_id == owner, columns.external_id.in_({*external_ids, ANYWHERE})
    )
    return connection.execute(named.limit(1)).first() is not None


def takes_any(connection: Connection, owner: str) -> bool:
    """True if it is a tenant's own connection that has never listed an installation, so that all are the tenant's."""
    return connection.execute(select(provider_connections.c.id).where(_takes_any(owner))).first() is not None


def _takes_any(owner: str) -> ColumnElement[bool]:
    columns = provider_connections.c
    return (columns.id == owner) & columns.tenant_id.is_not(None) & (columns.only_listed == false())


def note_organization(connection: Connection, *, owner: str, workspace: str, organization: str) -> None:
    """Store which organization has the app of this listed workspace: the app's end names no workspace."""
    columns = installations.c
    listed = update(installations).where(columns.connection_id == owner, columns.external_id == workspace)
    connection.execute(listed.values(organization=organization))


def whose_installations(
    connection: Connection, owner: str, external_ids: Iterable[str], *, within: str | None
) -> Listing:
    """Return the owners of these installations, workspaces or organizations, the latter with their workspaces.

    *within* is the organization whose app it may have been. Since that is uncertain, the end counts for the
    organization as well. A tenant's own connection that lists no installation belongs to that tenant wherever it is
    installed, even if the last listing was withdrawn: the workspace of each consent is not stored, and no end may be
    lost.
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
    """Return the tenant of each of these that is listed."""
    columns = installations.c
    said = select(columns.external_id, columns.tenant_id).where(
        columns.connection_id == owner, columns.external_id.in_(frozenset(external_ids))
    )
    return {row.external_id: row.tenant_id for row in connection.execute(said)}


def has_listing(connection: Connection, owner: str, tenant: str) -> bool:
    """True if anything of this connection is listed for the tenant."""
    columns = installations.c
    listed = select(columns.external_id).where(columns.connection_id == owner, columns.tenant_id == tenant)
    return connection.execute(listed.limit(1)).first() is not None


def may_be_elsewhere(connection: Connection, key: AccountKey) -> bool:
    """True if the account's credential may belong to one of several places: those listed for its tenant.

    If one is listed, also those where anybody connected and that are listed for nobody now: the person may have
    connected before the listing. If none is, all those where anybody connected. Which one it belongs to is not stored.
    """
    listed, seen = installations.c, places_seen.c
    here = select(listed.external_id).where(listed.connection_id == key.connection)
    ours = here.where(listed.tenant_id == key.tenant)
    places = len(connection.execute(ours.limit(2)).all())
    if places < 2:
        somewhere = (seen.connection_id == key.connection) & (seen.external_id != ANYWHERE)
        if places:
            somewhere &= seen.external_id.not_in(here)
        places += len(connection.execute(select(seen.external_id).where(somewhere).limit(2)).all())
    return places > 1


def tenant_of_installation(connection: Connection, owner: str, external_id: str) -> str | None:
    """Return the tenant that this installation is assigned to; None if there is none."""
    columns = installations.c
    said = select(columns.tenant_id).where(columns.connection_id == owner, columns.external_id == external_id)
    return connection.execute(said).scalar_one_or_none()


def acting_through(
    connection: Connection, owner: str, external_id: str, *, tenant: str, of_app: bool
) -> list[AccountKey]:
    """Return the tenant's accounts whose access ends with this installation, except revoked ones.

    An app's installation (*of_app*) is its service's, matched by id: users' external ids name people. A workspace's end
    covers everybody who has consented, unless the tenant has another one, since the workspace of each person is not
    recorded.
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
    """True if this connection lists no other installation, for any tenant."""
    columns = installations.c
    others = select(columns.external_id).where(columns.connection_id == owner, columns.external_id != external_id)
    return connection.execute(others.limit(1)).first() is None


def _has_another(connection: Connection, owner: str, external_id: str, *, tenant: str) -> bool:
    columns = installations.c
    others = (columns.connection_id == owner) & (columns.tenant_id == tenant) & (columns.external_id != external_id)
    return connection.execute(select(columns.external_id).where(others).limit(1)).first() is not None


def remove_installation(connection: Connection, *, owner: str, external_id: str, tenant: str | None = None) -> bool:
    """Delete an installation that the provider has removed, or *tenant's*, which an operator takes back.

    False if there is none, or it is another tenant's.
    """
    columns = installations.c
    gone = delete(installations).where(columns.connection_id == owner, columns.external_id == external_id)
    if tenant is not None:
        gone = gone.where(columns.tenant_id == tenant)
    return connection.execute(gone).rowcount == 1
