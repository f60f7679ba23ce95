"""Facts about provider connections beyond their rows: live secrets (without their values) and rivals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, exists, or_, select

from identity.connections.registry import ALL_BUT_ONE, running_by_place
from identity.connections.secrets import CLIENT_SECRET, PRIVATE_KEY, WEBHOOK_SECRET, live_secrets
from identity.providers import PROFILES
from identity.sql.columns import database_now
from identity.tables import connection_secrets, provider_connections, tenants
from pipeline.ledger.paging import Record, rows_of
from pipeline.views import operator_queries


def whole(connection: Connection, id: str) -> Record:
    """Return one connection with its live secrets, without their values."""
    row = operator_queries.provider_connection(connection, id)
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
            "key_id": one.key_id,
        }
        for name in (CLIENT_SECRET, PRIVATE_KEY, WEBHOOK_SECRET)
        for one in live_secrets(connection, id, name)
    ]
    return {**row, "secrets": secrets}


def rivalry(provider: str, tenant: str | None, ids: Sequence[str]) -> str:
    """Return the sentence about several connections that fit the same tenant."""
    whose = f"tenant {tenant}" if tenant is not None else "every tenant without one of its own"
    return f"{' and '.join(ids)} fit {whose}, so no work for {provider} goes through any, until {ALL_BUT_ONE}"


def rivals_of(connection: Connection, id: str) -> str | None:
    """Return that sentence for connection *id*; None: it has no rival."""
    row = operator_queries.provider_connection(connection, id)
    ids = running_by_place(connection).get((row["provider"], row["tenant_id"]), ())
    if row["provider"] not in PROFILES or len(ids) < 2 or id not in ids:
        return None
    return rivalry(row["provider"], row["tenant_id"], ids)


def all_rivals(connection: Connection) -> list[tuple[str, str]]:
    """Return the providers for which several connections fit some tenant, with the sentence that says so."""
    found = []
    for (provider, tenant), ids in sorted(running_by_place(connection).items(), key=lambda one: one[1]):
        if provider not in PROFILES or len(ids) < 2:
            continue
        own = exists().where(
            provider_connections.c.tenant_id == tenants.c.id, provider_connections.c.provider == provider
        )
        without = select(tenants.c.id).where(tenants.c.deleted_at.is_(None), ~own).limit(1)
        if tenant is not None or connection.execute(without).first() is not None:
            found.append((provider, rivalry(provider, tenant, ids)))
    return found


def refused_secrets(connection: Connection) -> list[Record]:
    """Return the live secrets that a provider refused while another one was live."""
    columns = connection_secrets.c
    refused = select(columns.id, columns.connection_id, columns.name).where(
        columns.refused_at.is_not(None), or_(columns.retired_at.is_(None), columns.retired_at > database_now())
    )
    return rows_of(connection, refused.order_by(columns.connection_id))


def secret_ends(connection: Connection, id: str, name: str) -> list[datetime | None]:
    """Return when each live secret of that name ends; None: it has no end yet."""
    columns = connection_secrets.c
    live = select(columns.retired_at).where(
        columns.connection_id == id,
        columns.name == name,
        or_(columns.retired_at.is_(None), columns.retired_at > database_now()),
    )
    return list(connection.execute(live).scalars())
