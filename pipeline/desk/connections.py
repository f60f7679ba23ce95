"""What a person does about provider connections and their secrets: each change with its audit row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from identity.connections import SealedSecret, add_secret, retire_secret
from identity.connections import resume_connection as use_again
from identity.errors import BadInput
from identity.tables import connection_secrets, provider_connections
from pipeline.desk.changes import record
from pipeline.ledger import queries


def resume(connection: Connection, id: str, *, audit_id: str, by: str, now: datetime) -> None:
    """Fetch tokens through it again. Raises BadInput if there is none, or it is not paused."""
    row = queries.provider_connection(connection, id)
    if row["paused_reason"] is None:
        raise BadInput(f"{id} is in use already")
    use_again(connection, id)
    record(connection, "connection.resumed", row["tenant_id"], {"connection": id}, audit_id=audit_id, by=by, now=now)


def add(
    connection: Connection, sealed: SealedSecret, *, tenant: str | None, audit_id: str, by: str, now: datetime
) -> None:
    """Let a further secret be used."""
    add_secret(connection, sealed)
    told = {"connection": sealed.connection, "name": sealed.name, "secret": sealed.id}
    record(connection, "connection.secret_added", tenant, told, audit_id=audit_id, by=by, now=now)


def retire(connection: Connection, secret: str, *, audit_id: str, by: str, now: datetime) -> None:
    """End a secret's life. Raises BadInput if there is none of that id."""
    found = connection.execute(
        select(connection_secrets.c.connection_id, connection_secrets.c.name, provider_connections.c.tenant_id)
        .join(provider_connections, provider_connections.c.id == connection_secrets.c.connection_id)
        .where(connection_secrets.c.id == secret)
    ).one_or_none()
    if found is None:
        raise BadInput(f"there is no secret {secret}")
    retire_secret(connection, secret, at=now)
    told = {"connection": found.connection_id, "name": found.name, "secret": secret}
    record(connection, "connection.secret_retired", found.tenant_id, told, audit_id=audit_id, by=by, now=now)
