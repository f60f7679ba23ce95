"""Scope sets: the scopes by which a revocation finds a job, from what its workflow declares.

A set is stored once, by its content, and shared by all jobs of one workflow and one user. Acceptance therefore writes
no row per scope, and finished jobs cost a revocation nothing: it looks only among unfinished jobs of sets that contain
its scope. A set is for finding; the rule alone decides whether a step may open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, bindparam, exists, select

from identity.model import AccountKey, Scope, ScopeKind, scopes_of_agent
from identity.sql.columns import is_among
from identity.sql.rows import insert_unless_there
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.uses import OnRevoke, Who
from pipeline.jobs.tenant_setup import TenantSetup
from pipeline.states import JobState
from pipeline.tables import job_scopes, jobs

#: The state a revocation moves each job to; a job already stopping belongs to another revocation.
REACHED: Mapping[JobState, JobState] = {
    JobState.QUEUED: JobState.CANCELLED,
    JobState.WAITING: JobState.CANCELLED,
    JobState.RUNNING: JobState.STOPPING,
}

SETS = 100  # looked up at a time

# A set is stored whole, and every set has its tenant's scope: if that row exists, all do. For a statement that binds
# `tenant` and `scopes`.
IS_STORED = exists().where(
    job_scopes.c.kind == ScopeKind.TENANT,
    job_scopes.c.key == bindparam("tenant"),
    job_scopes.c.scopes_sha256 == bindparam("scopes"),
)


@dataclass(frozen=True, kw_only=True)
class ScopeSet:
    """The scopes of a job, each with the effect of its revocation on the job."""

    sha256: str
    rows: tuple[tuple[str, str, str], ...]  # kind, key, on_revoke


def scope_set(here: TenantSetup, workflow: Workflow, user: str | None) -> ScopeSet:
    """Return the scope set of a job of that workflow for that user.

    Raises Misconfigured without one service principal.
    """
    found = _scopes(here, workflow, user)
    rows = tuple(sorted((str(scope.kind), scope.key, str(then)) for scope, then in found.items()))
    return ScopeSet(sha256=sha256("\n".join("\x00".join(row) for row in rows).encode()).hexdigest(), rows=rows)


def store(connection: Connection, scopes: ScopeSet) -> None:
    """Store a set, unless it exists."""
    connection.execute(
        insert_unless_there(connection.dialect.name, job_scopes),
        [
            {"kind": kind, "key": key, "scopes_sha256": scopes.sha256, "on_revoke": then}
            for kind, key, then in scopes.rows
        ],
    )


def _scopes(here: TenantSetup, workflow: Workflow, user: str | None) -> dict[Scope, OnRevoke]:
    """Return each scope, `skip` if every action that needs it says so. Tenant and agent always stop the job."""
    tenant = here.tenant
    found = dict.fromkeys(scopes_of_agent(tenant, workflow.agent), OnRevoke.STOP)
    service = here.service
    for action, who in workflow.uses.items():
        then = workflow.on_revoke.get(action, OnRevoke.STOP)
        through = here.connections.get(action.facts.provider)  # None: the step that needs it will report this
        for scope in _needed(tenant, through, user if who & Who.USER else None, service if who & Who.SERVICE else None):
            found[scope] = then if found.get(scope, then) is then else OnRevoke.STOP
    return found


def _needed(tenant: str, through: str | None, *principals: str | None) -> list[Scope]:
    """Return the scopes one action depends on, besides tenant and agent."""
    acting = [principal for principal in principals if principal]
    found = [Scope(kind=ScopeKind.USER, key=principal) for principal in acting]
    if through is not None:
        found.append(Scope(kind=ScopeKind.CONNECTION, key=through))
        keys = (AccountKey(tenant=tenant, connection=through, principal=principal) for principal in acting)
        found += [key.scope for key in keys]
    return found


def sets_with_work(
    connection: Connection, scope: Scope, *, before: int, after: str, then: OnRevoke, limit: int
) -> list[str]:
    """Return the next sets, ordered by digest, that have *scope* and an unfinished job accepted before *before*."""
    # A scalar subquery with a limit is never turned into a join, so each set costs one index lookup.
    one = jobs_of(before=before).with_only_columns(jobs.c.id).limit(1)
    work = one.where(jobs.c.scopes_sha256 == job_scopes.c.scopes_sha256).correlate(job_scopes).scalar_subquery()
    statement = (
        select(job_scopes.c.scopes_sha256)
        .where(
            job_scopes.c.kind == scope.kind,
            job_scopes.c.key == scope.key,
            job_scopes.c.on_revoke == then,
            job_scopes.c.scopes_sha256 > after,
            work.is_not(None),
        )
        .order_by(job_scopes.c.scopes_sha256)
        .limit(limit)
    )
    return list(connection.execute(statement).scalars().all())


def jobs_of(*, before: int | BindParameter[int]) -> Select[Any]:
    """Select unfinished jobs that a revocation numbered *before* has yet to reach; the caller adds the set."""
    return select(jobs).where(jobs.c.finished_at.is_(None), jobs.c.accepted < before, is_among(jobs.c.state, *REACHED))
