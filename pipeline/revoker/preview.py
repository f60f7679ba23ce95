"""Previews of revocations: what one would stop, and what would follow, read before anybody decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from identity.accounts.scopes import is_revoked
from identity.agents.api_keys import keys_under
from identity.connections.registry import connection_for
from identity.errors import Misconfigured
from identity.model import AccountKey, AccountState, PrincipalKind, Scope
from identity.tables import accounts, grants, principals
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import SERVICE, OnRevoke, Who
from pipeline.jobs.scope_sets import REACHED
from pipeline.revocation.declaration import under
from pipeline.revoker.consequences import (
    AskedOfProvider,
    StepsToUndo,
    asked_of_providers,
    refreshes_on_the_wire,
    steps_to_undo,
)
from pipeline.states import AttemptState, JobState
from pipeline.tables import attempts, job_scopes, jobs, workflow_settings

_WITH_GRANT = accounts.outerjoin(grants, grants.c.account_id == accounts.c.id)


@dataclass(frozen=True, kw_only=True)
class JobsAtStake:
    """Unfinished jobs of one workflow in one state."""

    workflow: str
    state: str
    then: str  # stop or skip
    jobs: int


@dataclass(frozen=True, kw_only=True)
class ServiceAtStake:
    """A service account that would end, and the workflows of its tenant that run as it."""

    account: str  # tenant/connection/principal
    provider: str
    workflows: tuple[str, ...]  # enabled, and declared to act as it
    unfinished_jobs: int


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The effect of a revocation, at the moment of reading; nothing is locked or changed."""

    jobs: tuple[JobsAtStake, ...]
    calls_in_flight: int
    unknown_calls: int
    accounts: int  # active, and not already ended by a wider revocation
    services: tuple[ServiceAtStake, ...]
    to_undo: tuple[StepsToUndo, ...]
    provider: tuple[AskedOfProvider, ...]
    refreshes_on_the_wire: int
    keys: tuple[str, ...]  # ids of the API keys that would end

    @property
    def stopped_jobs(self) -> int:
        return sum(one.jobs for one in self.jobs if one.then == OnRevoke.STOP)


def preview(connection: Connection, scope: Scope, workflows: Registry, *, now: datetime) -> Preview:
    """Return what revoking *scope* would stop now."""
    alive = _alive(connection, scope)
    return Preview(
        jobs=_jobs(connection, scope),
        calls_in_flight=_calls(connection, scope, AttemptState.OPEN),
        unknown_calls=_calls(connection, scope, AttemptState.UNKNOWN),
        accounts=sum(row.number for row in alive if row.state == AccountState.ACTIVE),
        services=tuple(_service(connection, row, workflows) for row in _services(connection, scope)),
        to_undo=steps_to_undo(connection, scope, workflows, now=now),
        provider=asked_of_providers(connection, alive),
        refreshes_on_the_wire=refreshes_on_the_wire(connection, scope),
        keys=keys_under(connection, scope, now=now),
    )


def _alive(connection: Connection, scope: Scope) -> list[Row[Any]]:
    """Count the accounts that would end, by kind.

    The database counts: reading a hundred thousand here takes so long that its server ends the idle transaction.
    """
    holds = or_(grants.c.access_sealed.is_not(None), grants.c.refresh_sealed.is_not(None))
    columns = (accounts.c.connection_id, accounts.c.credential, accounts.c.state, holds.label("holds"))
    found = select(*columns, func.count().label("number")).select_from(_WITH_GRANT)
    return list(connection.execute(found.where(_would_end(scope)).group_by(*columns)).all())


def _would_end(scope: Scope) -> ColumnElement[bool]:
    """Match the accounts below *scope* whose consent no revocation has ended yet."""
    ended = or_(accounts.c.state == AccountState.REVOKED, is_revoked(accounts, grants.c.consented))
    return and_(below(scope), ~ended)


def _services(connection: Connection, scope: Scope) -> Sequence[Row[Any]]:
    wanted = (accounts.c.state == AccountState.ACTIVE) & (principals.c.kind == PrincipalKind.SERVICE)
    found = select(accounts).select_from(_WITH_GRANT.join(principals, principals.c.id == accounts.c.principal_id))
    return connection.execute(found.where(_would_end(scope), wanted).order_by(accounts.c.id)).all()


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
    """Match the accounts whose grants end with a scope; an agent has none."""
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
    """True if the tenant's work for that provider goes through this provider connection."""
    try:
        return bool(connection_for(connection, row.tenant_id, row.provider).id == row.connection_id)
    except Misconfigured:
        return False
