"""Consequences of a revocation, read without changing anything: compensations, provider requests, token requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from identity.connections.registry import get_connection
from identity.connections.self_hosted import profile_for
from identity.errors import Misconfigured
from identity.model import Credential, ProviderConnection, Scope
from identity.providers import PROFILES
from identity.providers.profile import Reach
from identity.refresh.intents import IS_UNSETTLED
from identity.refresh.tables import refresh_intents
from identity.tables import accounts
from identity.withdrawals.end_request import reaches_all
from identity.withdrawals.token_revocation import can_be_asked
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import OnRevoke
from pipeline.jobs.scope_sets import REACHED
from pipeline.revocation.compensation import foreseen
from pipeline.revocation.declaration import under
from pipeline.states import StepState
from pipeline.tables import job_scopes, jobs, steps


@dataclass(frozen=True, kw_only=True)
class StepsToUndo:
    """Steps done by unfinished jobs of one workflow, which it compensates if a job is cancelled."""

    tenant: str
    workflow: str
    action: str
    steps: int
    by: str  # the action that would compensate each
    why_not: str | None  # None: it can be compensated


@dataclass(frozen=True, kw_only=True)
class AskedOfProvider:
    """Credentials that one provider connection would ask its provider to end."""

    connection: str
    provider: str
    credential: str
    accounts: int
    ends: Reach | None  # AUTHORIZATION: all that each person granted this client; None: it cannot be asked


def steps_to_undo(
    connection: Connection, scope: Scope, workflows: Registry, *, now: datetime
) -> tuple[StepsToUndo, ...]:
    """Return the steps to undo of the jobs that *scope* would cancel. What they do until then comes on top."""
    of = {
        (declared.name, done.action_name()): how.by.action_name()
        for declared in workflows
        for done, how in declared.compensations.items()
    }
    if not of:
        return ()
    columns = (jobs.c.tenant_id, jobs.c.workflow, steps.c.action)
    found = connection.execute(
        select(*columns, func.count().label("number"))
        .join(jobs, jobs.c.id == steps.c.job_id)
        .join(job_scopes, job_scopes.c.scopes_sha256 == jobs.c.scopes_sha256)
        .where(job_scopes.c.kind == scope.kind, job_scopes.c.key == scope.key)
        .where(job_scopes.c.on_revoke == OnRevoke.STOP, jobs.c.finished_at.is_(None), jobs.c.state.in_(list(REACHED)))
        .where(steps.c.state == StepState.DONE, steps.c.adopted_from.is_(None))
        .where(steps.c.action.in_({action for _, action in of}))
        .group_by(*columns)
        .order_by(*columns)
    )
    return tuple(
        StepsToUndo(
            tenant=row.tenant_id,
            workflow=row.workflow,
            action=row.action,
            steps=row.number,
            by=of[row.workflow, row.action],
            why_not=foreseen(
                connection, workflows.get(row.workflow), row.action, tenant=row.tenant_id, without=scope, now=now
            ),
        )
        for row in found
        if (row.workflow, row.action) in of
    )


def asked_of_providers(connection: Connection, rows: Iterable[Row[Any]]) -> tuple[AskedOfProvider, ...]:
    """Return what the providers would be asked to end.

    *rows*: counts of accounts that would end, and whether they hold a credential.
    """
    counted: Counter[tuple[str, Credential]] = Counter()
    for row in rows:
        if row.holds:
            counted[row.connection_id, Credential(row.credential)] += row.number
    owners = {id: get_connection(connection, id) for id, _ in counted}
    return tuple(
        AskedOfProvider(
            connection=id,
            provider=owners[id].provider,
            credential=credential,
            accounts=number,
            ends=_ends(owners[id], credential),
        )
        for (id, credential), number in sorted(counted.items())
    )


def refreshes_on_the_wire(connection: Connection, scope: Scope) -> int:
    """Count refreshes with an unknown outcome: nobody uses what they win, and the provider is asked afterwards."""
    waited = select(func.count()).select_from(refresh_intents)
    waited = waited.join(accounts, accounts.c.id == refresh_intents.c.account_id)
    waited = waited.where(under(scope, accounts), IS_UNSETTLED)
    return int(connection.execute(waited).scalar_one())


def _ends(owner: ProviderConnection, credential: Credential) -> Reach | None:
    try:
        profile = profile_for(PROFILES, owner)
    except Misconfigured:
        return None
    if not can_be_asked(profile, owner, credential):
        return None
    return Reach.AUTHORIZATION if reaches_all(profile, credential) else Reach.TOKEN
