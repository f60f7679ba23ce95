"""What operators ask of the whole ledger: plain reads, newest first, a mapping a row.

The command line and the console share them. What one tenant's agents may see is in `pipeline.ledger.views`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, func, select

from identity.accounts import is_account
from identity.connections import NEEDS_OPERATOR, connection_for, get_connection
from identity.errors import BadInput
from identity.model import AccountKey, ProviderConnection
from identity.tables import (
    accounts,
    agents,
    aliases,
    connection_secrets,
    grants,
    installations,
    principals,
    provider_connections,
    scopes,
    tenants,
    transmitters,
)
from pipeline.ledger.indexed import STUCK, TROUBLED, UNANSWERED, in_state
from pipeline.ledger.paging import Record, rows_of
from pipeline.revocation.tables import compensations, revocation_pages, revocations
from pipeline.schedules.changes import CODE
from pipeline.states import JobState, Wait
from pipeline.tables import attempts, heartbeats, jobs, schedules, steps, workflow_settings

UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.STOPPING, JobState.WAITING)


def one(connection: Connection, table: Table, id: str, *, what: str, listed_by: str) -> Record:
    """The row of that id. Raises BadInput, which says how to see the ids there are."""
    found = rows_of(connection, select(table).where(table.c.id == id))
    if not found:
        raise BadInput(f"there is no {what} {id}: `aswhom {listed_by}` shows them")
    return found[0]


def tenant(connection: Connection, id: str) -> Record:
    return one(connection, tenants, id, what="tenant", listed_by="tenants list")


def living_tenant(connection: Connection, id: str) -> Record:
    """That tenant, if anything may be set up for it. Raises BadInput."""
    found = tenant(connection, id)
    if found["deleted_at"] is not None:
        raise BadInput(f"tenant {id} was deleted: it is stopped for good")
    return found


def all_tenants(connection: Connection, among: Collection[str] | None = None) -> list[Record]:
    """Deleted ones too; *among*: those of these alone."""
    found = select(tenants).order_by(tenants.c.id)
    return rows_of(connection, found if among is None else found.where(tenants.c.id.in_(among)))


def all_agents(connection: Connection) -> list[Record]:
    """Those that have had a job, or an API key."""
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
    """Each with the names of its live secrets."""
    found = rows_of(connection, select(provider_connections).order_by(provider_connections.c.id))
    return with_secrets(connection, found)


def with_secrets(
    connection: Connection, found: Sequence[Record], *, among: Sequence[str] | None = None
) -> list[Record]:
    """These provider connections, each with the names of its live secrets; looked up *among* so few, if said."""
    columns = connection_secrets.c
    secrets = select(columns.connection_id, columns.name).where(columns.retired_at.is_(None))
    if among is not None:
        secrets = secrets.where(columns.connection_id.in_(among))
    names: dict[str, list[str]] = {}
    for owner, name in connection.execute(secrets.order_by(columns.name)):
        names.setdefault(owner, []).append(name)
    return [{**row, "secrets": names.get(row["id"], [])} for row in found]


def all_transmitters(connection: Connection) -> list[Record]:
    return rows_of(connection, select(transmitters).order_by(transmitters.c.id))


def all_installations(connection: Connection) -> list[Record]:
    return rows_of(
        connection, select(installations).order_by(installations.c.connection_id, installations.c.external_id)
    )


def _accounts() -> Select[Any]:
    of_grant = [
        grants.c.generation,
        grants.c.scopes,
        grants.c.obtained_at,
        grants.c.expires_at,
        grants.c.consented,
        grants.c.used_at,
        grants.c.keepalive_due,
        grants.c.keepalive_failures,
        grants.c.keepalive_error,
    ]
    return (
        select(accounts, principals.c.name.label("principal"), principals.c.kind.label("kind"), *of_grant)
        .join(principals, principals.c.id == accounts.c.principal_id)
        .outerjoin(grants, grants.c.account_id == accounts.c.id)
    )


def all_accounts(
    connection: Connection, *, tenant: str | None, state: str | None, provider: str | None = None
) -> list[Record]:
    statement = _accounts().order_by(accounts.c.tenant_id, accounts.c.connection_id, accounts.c.principal_id)
    if tenant:
        statement = statement.where(accounts.c.tenant_id == tenant)
    if state:
        statement = statement.where(accounts.c.state == state)
    if provider:
        statement = statement.where(accounts.c.provider == provider)
    return rows_of(connection, statement)


def account(connection: Connection, id: str) -> Record:
    """By its id, or by `tenant/connection/principal`. Raises BadInput."""
    found = rows_of(connection, _accounts().where(is_account(id)))
    if not found:
        raise BadInput(f"there is no account {id}: `aswhom accounts list` shows them")
    return found[0]


def account_key(row: Mapping[str, Any]) -> AccountKey:
    return AccountKey(tenant=row["tenant_id"], connection=row["connection_id"], principal=row["principal_id"])


def fitting_connection(connection: Connection, tenant: str, name: str) -> ProviderConnection:
    """A provider connection by its id, else the one of that provider which fits the tenant. Raises BadInput."""
    ids = connection.execute(select(provider_connections.c.id).where(provider_connections.c.id == name)).scalars()
    if ids.first() is None:
        return connection_for(connection, tenant, name)
    found = get_connection(connection, name)
    if found.tenant not in (None, tenant):
        raise BadInput(f"provider connection {name} belongs to another tenant than {tenant}")
    return found


def all_jobs(
    connection: Connection,
    *,
    tenant: str | None,
    state: str | None,
    wait: str | None,
    workflow: str | None,
    limit: int,
) -> list[Record]:
    statement = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
    if wait == Wait.UNKNOWN:
        statement = statement.where(jobs.c.id.in_(UNANSWERED.with_only_columns(attempts.c.job_id)))
    elif wait:  # in the words of the partial index that has those of a wait
        statement = statement.where(in_state(JobState.WAITING), jobs.c.wait == wait)
    for column, wanted in ((jobs.c.tenant_id, tenant), (jobs.c.state, state), (jobs.c.workflow, workflow)):
        if wanted:
            statement = statement.where(column == wanted)
    return rows_of(connection, statement)


def job(connection: Connection, id: str) -> Record:
    return one(connection, jobs, id, what="job", listed_by="jobs list")


def steps_of(connection: Connection, job: str) -> list[Record]:
    """The steps of a job in order, each with who it ran as and its attempts."""
    found = rows_of(
        connection,
        select(steps, principals.c.name.label("principal"), principals.c.kind.label("kind"))
        .outerjoin(principals, principals.c.id == steps.c.principal_id)
        .where(steps.c.job_id == job)
        .order_by(steps.c.position),
    )
    of_job = select(attempts).join(steps, steps.c.id == attempts.c.step_id).where(steps.c.job_id == job)
    tries = rows_of(connection, of_job.order_by(attempts.c.opened))
    return [{**step, "attempts": [one for one in tries if one["step_id"] == step["id"]]} for step in found]


def all_revocations(connection: Connection, *, limit: int | None, stuck: bool = False) -> list[Record]:
    columns = [column for column in revocations.c if column.name not in ("receipt", "signature")]
    found = select(*columns)
    if stuck:
        found = found.where(revocations.c.id.in_(STUCK))
    return rows_of(connection, found.order_by(revocations.c.number.desc()).limit(limit))


def revocation_pages_of(connection: Connection, id: str) -> list[Record]:
    """The jobs a revocation reached, a page a row, in the order of the receipt."""
    columns = revocation_pages.c
    return rows_of(connection, select(revocation_pages).where(columns.revocation_id == id).order_by(columns.number))


def compensation_of(connection: Connection, job: str) -> list[Record]:
    """What followed the steps of a cancelled job, or why nothing did, with the state of the jobs that do it."""
    by = jobs.alias("by")
    statement = (
        select(compensations, steps.c.position, by.c.state.label("by_state"))
        .join(steps, steps.c.id == compensations.c.step_id)
        .outerjoin(by, by.c.id == compensations.c.job_id)
        .where(steps.c.job_id == job)
    )
    return rows_of(connection, statement.order_by(steps.c.position))


def revocation(connection: Connection, id: str) -> Record:
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


def all_schedules(connection: Connection, tenant: str | None) -> list[Record]:
    """The next to fire first."""
    statement = select(schedules).where(schedules.c.removed_at.is_(None)).order_by(schedules.c.next_at, schedules.c.id)
    return rows_of(connection, statement if tenant is None else statement.where(schedules.c.tenant_id == tenant))


def all_heartbeats(connection: Connection) -> list[Record]:
    return rows_of(connection, select(heartbeats).order_by(heartbeats.c.duty, heartbeats.c.host))


def stopped_scopes(connection: Connection) -> list[Record]:
    return rows_of(connection, select(scopes).where(scopes.c.stopped.is_(True)))


def paused_connections(connection: Connection) -> list[Record]:
    """Those that somebody is to act for."""
    columns = provider_connections.c
    return rows_of(connection, select(columns.id, columns.provider, columns.paused_reason).where(NEEDS_OPERATOR))


def troubled_accounts(connection: Connection, *, limit: int) -> tuple[list[Record], int]:
    """The first of them, and how many there are."""
    number = select(func.count()).select_from(accounts).where(TROUBLED)
    first = rows_of(connection, _accounts().where(TROUBLED).order_by(accounts.c.id).limit(limit))
    return first, connection.execute(number).scalar_one()
