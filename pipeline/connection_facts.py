"""What is known of provider connections beside their rows: their live secrets, but for what these are."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, or_, select

from identity.columns import database_now
from identity.connection_secrets import CLIENT_SECRET, PRIVATE_KEY, WEBHOOK_SECRET, live_secrets
from identity.tables import connection_secrets
from pipeline.ledger import queries
from pipeline.ledger.paging import Record, rows_of


def whole(connection: Connection, id: str) -> Record:
    """One, with its live secrets but for what they are."""
    row = queries.provider_connection(connection, id)
    retires = select(connection_secrets.c.id, connection_secrets.c.retired_at).where(
        connection_secrets.c.connection_id == id
    )
    ends = {row.id: row.retired_at for row in connection.execute(retires)}
    secrets = [
        {
            "id": one.id,
            "name": one.name,
            "created_at": one.created_at,
            "used_from": one.used_from,
            "refused_at": one.refused_at,
            "retired_at": ends[one.id],
        }
        for name in (CLIENT_SECRET, PRIVATE_KEY, WEBHOOK_SECRET)
        for one in live_secrets(connection, id, name)
    ]
    return {**row, "secrets": secrets}


def refused_secrets(connection: Connection) -> list[Record]:
    """Those that the provider did not accept while another was live."""
    columns = connection_secrets.c
    refused = select(columns.id, columns.connection_id, columns.name).where(
        columns.refused_at.is_not(None), or_(columns.retired_at.is_(None), columns.retired_at > database_now())
    )
    return rows_of(connection, refused.order_by(columns.connection_id))


def secret_ends(connection: Connection, id: str, name: str) -> list[datetime | None]:
    """When each live secret of that name ends; None: not before somebody says so."""
    columns = connection_secrets.c
    live = select(columns.retired_at).where(
        columns.connection_id == id,
        columns.name == name,
        or_(columns.retired_at.is_(None), columns.retired_at > database_now()),
    )
    return list(connection.execute(live).scalars())
