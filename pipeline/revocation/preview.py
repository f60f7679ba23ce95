"""What a revocation would stop, read before anybody decides: jobs, calls, and who else depends on a service account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from identity.connections import connection_for
from identity.errors import Misconfigured
from identity.model import AccountKey, AccountState, PrincipalKind, Scope
from identity.tables import accounts, principals
from pipeline.ledger.scope_sets import REACHED
from pipeline.revocation import under
from pipeline.states import AttemptState, JobState
from pipeline.tables import attempts, job_scopes, jobs, workflow_settings
from pipeline.workflow import SERVICE, OnRevoke, Registry, Who


@dataclass(frozen=True, kw_only=True)
class JobsAtStake:
    """Unfinished jobs of one workflow in one state."""

    workflow: str
    state: str
    then: str  # stop or skip
    jobs: int


@dataclass(frozen=True, kw_only=True)
class ServiceAtStake:
    """A service account that would end, and what runs as it: one tenant's workflows, whoever asked for them."""

    account: str  # tenant/connection/principal
    provider: str
    workflows: tuple[str, ...]  # switched on, and declared to act as it
    unfinished_jobs: int


@dataclass(frozen=True, kw_only=True)
class Preview:
    """All of it, at the moment of reading; nothing is locked or changed."""

    jobs: tuple[JobsAtStake, ...]
    calls_in_flight: int
    unknown_calls: int
    accounts: int  # active
    services: tuple[ServiceAtStake, ...]

    @property
    def stopped_jobs(self) -> int:
        return sum(one.jobs for one in self.jobs if one.then == OnRevoke.STOP)


def preview(connection: Connection, scope: Scope, workflows: Registry) -> Preview:
    """What revoking *scope* would stop now."""
    active = select(accounts).join(principals, principals.c.id == accounts.c.principal_id)
    ending = below(scope) & (accounts.c.state == AccountState.ACTIVE)
    services = active.where(ending, principals.c.kind == PrincipalKind.SERVICE).order_by(accounts.c.id)
    return Preview(
        jobs=_jobs(connection, scope),
        calls_in_flight=_calls(connection, scope, AttemptState.OPEN),
        unknown_calls=_calls(connection, scope, AttemptState.UNKNOWN),
        accounts=connection.execute(select(func.count()).select_from(accounts).where(ending)).scalar_one(),
        services=tuple(_service(connection, row, workflows) for row in connection.execute(services).all()),
    )


def _jobs(connection: Connection, scope: Scope) -> tuple[JobsAtStake, ...]:
    columns = (jobs.c.workflow, jobs.c.state, job_scopes.c.on_revoke)
    found = connection.execute(
        select(*columns, func.count().label("number"))
        .join(job_scopes, job_scopes.c.scopes_sha256 == jobs.c.scopes_sha256)
        .where(job_scopes.c.kind == scope.kind, job_scopes.c.key == scope.key)
        .where(jobs.c.finished_at.is_(None), jobs.c.state.in_([*REACHED, JobState.STOPPING]))
        .group_by(*columns)
        .order_by(*columns)
    )
    return tuple(
        JobsAtStake(workflow=row.workflow, state=row.state, then=row.on_revoke, jobs=row.number) for row in found
    )


def _calls(connection: Connection, scope: Scope, state: AttemptState) -> int:
    found = select(func.count()).select_from(attempts).where(under(scope, attempts), attempts.c.state == state)
    return int(connection.execute(found).scalar_one())


def below(scope: Scope) -> ColumnElement[bool]:
    """The accounts whose grants end with a scope; an agent has none."""
    return under(scope, accounts)


def _service(connection: Connection, row: Any, workflows: Registry) -> ServiceAtStake:
    enabled = select(workflow_settings.c.workflow).where(
        workflow_settings.c.tenant_id == row.tenant_id, workflow_settings.c.enabled
    )
    switched_on = set(connection.execute(enabled).scalars())
    using = [
        declared.name
        for declared in workflows
        if declared.name in switched_on
        and declared.providers.get(row.provider, Who(0)) & SERVICE
        and _goes_through(connection, row)
    ]
    key = AccountKey.of(row)
    return ServiceAtStake(
        account=str(key),
        provider=row.provider,
        workflows=tuple(using),
        unfinished_jobs=sum(one.jobs for one in _jobs(connection, key.scope)),
    )


def _goes_through(connection: Connection, row: Any) -> bool:
    """Whether the tenant's work for that provider goes through this provider connection."""
    try:
        return bool(connection_for(connection, row.tenant_id, row.provider).id == row.connection_id)
    except Misconfigured:
        return False
