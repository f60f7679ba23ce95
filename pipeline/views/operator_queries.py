"""Reads for the operator of the installation, across tenants: one mapping per row.

`any_…` reads one row by its id and raises BadInput, naming the command that lists ids, if there is none; the rest read
short lists whole. Long lists, and everything a tenant may see, are in `pipeline.views.tenant_views`. The web uses no
`any_…` (tests/house/test_operator_queries.py).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, Table, func, select

from identity.connections.registry import NEEDS_OPERATOR, connection_for, get_connection
from identity.errors import BadInput
from identity.model import ProviderConnection, ScopeKind
from identity.tables import (
    accounts,
    agents,
    aliases,
    installations,
    principals,
    provider_connections,
    scopes,
    tenants,
    transmitters,
)
from pipeline.ledger.forgotten import no_delivery, no_job
from pipeline.ledger.indexed import TROUBLED
from pipeline.ledger.paging import EVERY, Record, rows_of
from pipeline.model import LeftOut
from pipeline.revocation.tables import compensations, revocation_pages, revocations
from pipeline.schedules.changes import CODE
from pipeline.tables import deliveries, heartbeats, jobs, schedules, steps, workflow_settings
from pipeline.views import tenant_views
from pipeline.views.tenant_views import EVERY_TENANT


def one(connection: Connection, table: Table, id: str, *, what: str, listed_by: str) -> Record:
    """Return the row with that id. Raises BadInput, which says how to list the ids."""
    found = rows_of(connection, select(table).where(table.c.id == id))
    return _found(found[0] if found else None, id, what=what, listed_by=listed_by)


def _found(row: Record | None, id: str, *, what: str, listed_by: str) -> Record:
    if row is None:
        raise BadInput(f"there is no {what} {id}: `aswhom {listed_by}` shows them")
    return row


def tenant(connection: Connection, id: str) -> Record:
    return one(connection, tenants, id, what="tenant", listed_by="tenants list")


def living_tenant(connection: Connection, id: str) -> Record:
    """Return that tenant if it is not deleted. Raises BadInput."""
    found = tenant(connection, id)
    if found["deleted_at"] is not None:
        raise BadInput(f"tenant {id} was deleted: it is stopped for good")
    return found


def all_tenants(connection: Connection, among: Collection[str] | None = None) -> list[Record]:
    """Return all tenants, including deleted ones; *among*: only these."""
    found = select(tenants).order_by(tenants.c.id)
    return rows_of(connection, found if among is None else found.where(tenants.c.id.in_(among)))


def all_agents(connection: Connection) -> list[Record]:
    """Return all agents that have had a job or an API key."""
    return rows_of(connection, select(agents).order_by(agents.c.id))


def all_principals(connection: Connection, tenant: str | None) -> list[Record]:
    statement = select(principals).order_by(principals.c.tenant_id, principals.c.id)
    return rows_of(connection, statement.where(principals.c.tenant_id == tenant) if tenant else statement)


def all_aliases(connection: Connection, tenant: str | None) -> list[Record]:
    statement = select(aliases).order_by(aliases.c.tenant_id, aliases.c.provider, aliases.c.login)
    return rows_of(connection, statement.where(aliases.c.tenant_id == tenant) if tenant else statement)


def provider_connection(connection: Connection, id: str) -> Record:
    return one(connection, provider_connections, id, what="provider connection", listed_by="connections list")


def all_connections(connection: Connection) -> list[Record]:
    """Return all provider connections, each with the names of its live secrets."""
    return sorted(tenant_views.connections_page(connection, None, EVERY).rows, key=lambda row: row["id"])


def all_transmitters(connection: Connection) -> list[Record]:
    return rows_of(connection, select(transmitters).order_by(transmitters.c.id))


def all_installations(connection: Connection) -> list[Record]:
    return rows_of(
        connection, select(installations).order_by(installations.c.connection_id, installations.c.external_id)
    )


def any_account(connection: Connection, id: str) -> Record:
    """Return an account by its id, or by `tenant/connection/principal`. Raises BadInput."""
    return _found(tenant_views.account(connection, EVERY_TENANT, id), id, what="account", listed_by="accounts list")


def fitting_connection(connection: Connection, tenant: str, name: str) -> ProviderConnection:
    """Return a provider connection by its id, or else the one of that provider that fits the tenant.

    Raises BadInput.
    """
    ids = connection.execute(select(provider_connections.c.id).where(provider_connections.c.id == name)).scalars()
    if ids.first() is None:
        return connection_for(connection, tenant, name)
    found = get_connection(connection, name)
    if found.tenant not in (None, tenant):
        raise BadInput(f"provider connection {name} belongs to another tenant than {tenant}")
    return found


def any_job(connection: Connection, id: str) -> Record:
    """Return a job. Raises BadInput, which says whether retention has removed it."""
    found = rows_of(connection, select(jobs).where(jobs.c.id == id))
    if not found:
        raise no_job(connection, id)
    return found[0]


def revocation_pages_of(connection: Connection, id: str) -> list[Record]:
    """Return the jobs a revocation reached, one page per row, in the order of the receipt."""
    columns = revocation_pages.c
    return rows_of(connection, select(revocation_pages).where(columns.revocation_id == id).order_by(columns.number))


def compensation_of(connection: Connection, job: str) -> list[Record]:
    """Return the compensations of a cancelled job's steps, or why there are none, with the states of their jobs."""
    by = jobs.alias("by")
    statement = (
        select(compensations, steps.c.position, by.c.state.label("by_state"))
        .join(steps, steps.c.id == compensations.c.step_id)
        .outerjoin(by, by.c.id == compensations.c.job_id)
        .where(steps.c.job_id == job)
    )
    return rows_of(connection, statement.order_by(steps.c.position))


def any_revocation(connection: Connection, id: str) -> Record:
    return one(connection, revocations, id, what="revocation", listed_by="revocations list")


def all_workflow_settings(connection: Connection, tenant: str | None) -> list[Record]:
    statement = select(workflow_settings, schedules.c.cron, schedules.c.zone, schedules.c.next_at).outerjoin(
        schedules,
        (schedules.c.tenant_id == workflow_settings.c.tenant_id)
        & (schedules.c.workflow == workflow_settings.c.workflow)
        & (schedules.c.origin == CODE)
        & schedules.c.removed_at.is_(None),
    )
    if tenant:
        statement = statement.where(workflow_settings.c.tenant_id == tenant)
    return rows_of(connection, statement.order_by(workflow_settings.c.tenant_id, workflow_settings.c.workflow))


def any_delivery(connection: Connection, id: str) -> Record:
    """Return a delivery with its body and the ids of its jobs. Raises BadInput."""
    found = tenant_views.delivery(connection, EVERY_TENANT, id)
    if found is None:
        raise no_delivery(connection, id)
    return found


_LOOKED_AT = 10_000  # a few minutes of a busy installation: enough to show what a wrong list leaves out


def left_out(connection: Connection, *, since: datetime) -> list[Record]:
    """Count recent deliveries that came to nothing because what they name is not listed, by reason.

    These are events that workflows wanted, and revocations.
    """
    latest = (
        select(deliveries.c.connection_id, deliveries.c.left_out, deliveries.c.reason)
        .where(deliveries.c.received_at >= since)
        .order_by(deliveries.c.received_at.desc(), deliveries.c.id.desc())
        .limit(_LOOKED_AT)
        .subquery()
    )
    found = (
        select(latest.c.connection_id, latest.c.reason, func.count().label("deliveries"))
        .where(latest.c.left_out.in_([LeftOut.UNLISTED, LeftOut.UNREACHED]))
        .group_by(latest.c.connection_id, latest.c.reason)
        .order_by(func.count().desc(), latest.c.connection_id, latest.c.reason)
        .limit(20)
    )
    return rows_of(connection, found)


def all_heartbeats(connection: Connection) -> list[Record]:
    return rows_of(connection, select(heartbeats).order_by(heartbeats.c.duty, heartbeats.c.host))


def stopped_scopes(connection: Connection, among: Collection[str] | None = None) -> list[Record]:
    """Return the stopped scopes; *among*: only those of these tenants that are stopped themselves."""
    found = select(scopes).where(scopes.c.stopped.is_(True)).order_by(scopes.c.kind, scopes.c.key)
    if among is not None:
        found = found.where(scopes.c.kind == ScopeKind.TENANT, scopes.c.key.in_(among))
    return rows_of(connection, found)


def paused_connections(connection: Connection, among: Collection[str] | None = None) -> list[Record]:
    """Return provider connections that need an operator; *among*: only these tenants' own."""
    columns = provider_connections.c
    found = select(columns.id, columns.tenant_id, columns.provider, columns.paused_reason).where(NEEDS_OPERATOR)
    if among is not None:
        found = found.where(columns.tenant_id.in_(among))
    return rows_of(connection, found.order_by(columns.id))


def troubled_accounts(connection: Connection, *, limit: int) -> tuple[list[Record], int]:
    """Return the first *limit* troubled accounts, and how many there are."""
    number = select(func.count()).select_from(accounts).where(TROUBLED)
    first = rows_of(connection, tenant_views.ACCOUNTS.where(TROUBLED).order_by(accounts.c.id).limit(limit))
    return first, connection.execute(number).scalar_one()
