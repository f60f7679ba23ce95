"""Operator actions on the secrets of provider connections, each with its audit row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Connection, select

from identity.audit import Act
from identity.connections.secrets import SealedSecret, add_secret, retire_secret, rotate_secret, seal_secret
from identity.errors import BadInput
from identity.keys.vault import Vault
from identity.model import ProviderConnection
from identity.secret import Secret
from identity.tables import connection_secrets, provider_connections
from pipeline.desk.changes import record_change


def seal(
    vault: Vault, owner: ProviderConnection, given: Mapping[str, Secret], *, ids: Callable[[str], str], now: datetime
) -> list[SealedSecret]:
    """Seal the secrets of a new connection, by name, for `connections.add`. Raises BadInput."""
    return [
        seal_secret(vault, owner, id=ids("sec"), name=name, secret=secret, now=now) for name, secret in given.items()
    ]


def add(connection: Connection, sealed: SealedSecret, act: Act, *, tenant: str | None) -> None:
    """Add a further secret."""
    add_secret(connection, sealed)
    detail = {"connection": sealed.connection, "name": sealed.name, "secret": sealed.id}
    record_change(connection, "connection.secret_added", tenant, detail, act)


def rotate(
    connection: Connection, sealed: SealedSecret, act: Act, *, tenant: str | None, retire_at: datetime | None
) -> tuple[str, ...]:
    """Replace a secret by a new one; return the ids of its predecessors, which end at *retire_at*.

    Raises Misconfigured.
    """
    former = tuple(one.id for one in rotate_secret(connection, sealed, retire_at=retire_at))
    detail = {"connection": sealed.connection, "name": sealed.name, "new": sealed.id, "old": list(former)}
    record_change(connection, "connection.secret_rotated", tenant, detail, act)
    return former


def retire(connection: Connection, secret: str, act: Act) -> None:
    """Retire a secret, unless it has ended. Raises BadInput if there is none with that id."""
    found = connection.execute(
        select(connection_secrets.c.connection_id, connection_secrets.c.name, provider_connections.c.tenant_id)
        .join(provider_connections, provider_connections.c.id == connection_secrets.c.connection_id)
        .where(connection_secrets.c.id == secret)
    ).one_or_none()
    if found is None:
        raise BadInput(f"there is no secret {secret}")
    if not retire_secret(connection, secret):
        return
    detail = {"connection": found.connection_id, "name": found.name, "secret": secret}
    record_change(connection, "connection.secret_retired", found.tenant_id, detail, act)
