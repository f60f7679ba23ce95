"""Installations of a provider connection: whose they are, as an operator or the provider has said."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, delete, select

from identity.connections import get_connection
from identity.rows import insert_new
from identity.tables import installations


def add_installation(connection: Connection, *, owner: str, external_id: str, tenant: str, now: datetime) -> bool:
    """Say whose an installation of the platform's connection is; False if that was said before."""
    row = {"connection_id": owner, "external_id": external_id, "tenant_id": tenant, "created_at": now}
    return insert_new(connection, installations, row)


def tenants_of_installations(connection: Connection, owner: str, external_ids: Iterable[str]) -> frozenset[str]:
    """Whose these installations, workspaces or organizations are.

    A tenant's own connection of which no installation was ever listed is that tenant's wherever it is installed.
    """
    ids = frozenset(external_ids)
    ours = select(installations.c.tenant_id).where(installations.c.connection_id == owner)
    found = frozenset(connection.execute(ours.where(installations.c.external_id.in_(ids)).distinct()).scalars())
    if found or not ids or connection.execute(ours.limit(1)).first() is not None:
        return found
    tenant = get_connection(connection, owner).tenant
    return frozenset() if tenant is None else frozenset({tenant})


def remove_installation(connection: Connection, *, owner: str, external_id: str) -> bool:
    """Forget an installation that the provider has deleted."""
    gone = delete(installations).where(
        installations.c.connection_id == owner, installations.c.external_id == external_id
    )
    return connection.execute(gone).rowcount == 1
