"""Operator actions on rate limits of a tenant, an agent or an API key, in place of the settings'."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from identity.agents.tables import api_keys
from identity.audit import Act
from identity.errors import BadInput
from identity.tables import agents, tenants
from pipeline.desk.changes import record_change
from pipeline.views import operator_queries


def limit_tenant(connection: Connection, id: str, rate: int | None, act: Act) -> None:
    """Set how many deliveries a minute a tenant sends; None: as many as the setting says. Raises BadInput."""
    operator_queries.living_tenant(connection, id)
    connection.execute(update(tenants).where(tenants.c.id == id).values(webhook_rate=rate))
    record_change(connection, "tenant.limited", id, {"tenant": id, "webhook_rate": rate}, act)


def limit_agent(connection: Connection, id: str, rate: int | None, act: Act) -> None:
    """Set how many requests a minute all keys of an agent make together; None: each has its own quota.

    Raises BadInput for an agent that has never had a key.
    """
    keys = select(api_keys.c.tenant_id).where(api_keys.c.agent_id == id).limit(1)
    tenant = connection.execute(keys).scalar_one_or_none()
    if tenant is None:
        raise BadInput(f"no API key is agent {id}'s: `aswhom api-keys list` shows whose there are")
    connection.execute(update(agents).where(agents.c.id == id).values(api_rate=rate))
    record_change(connection, "agent.limited", tenant, {"agent": id, "api_rate": rate}, act)


def limit_key(connection: Connection, id: str, rate: int | None, act: Act) -> None:
    """Set how many requests a minute a key makes; None: as many as the setting says. Raises BadInput."""
    live = (api_keys.c.id == id) & api_keys.c.revoked_at.is_(None)
    limited = update(api_keys).where(live).values(api_rate=rate)
    tenant = connection.execute(limited.returning(api_keys.c.tenant_id)).scalar_one_or_none()
    if tenant is None:
        raise BadInput(f"there is no live key {id}: `aswhom api-keys list` shows them")
    record_change(connection, "api_key.limited", tenant, {"key": id, "api_rate": rate}, act)
