"""Whether a step could open with an account now, why not, and what it lacks for the work there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from identity.connections import paused_reason
from identity.model import AccountKey, AccountState, PrincipalKind
from identity.providers import PROFILES
from identity.scopes import grant_scopes, revoked_since
from pipeline.ledger.jobs import consent_of
from pipeline.states import JobState
from pipeline.tables import jobs, workflow_settings
from pipeline.uses import SERVICE, USER
from pipeline.workflow import Registry


@dataclass(frozen=True, kw_only=True)
class Health:
    """What is known of an account beside its row."""

    usable: bool
    why: str | None  # why not
    missing_scopes: tuple[str, ...]


def health(connection: Connection, workflows: Registry, row: Mapping[str, Any]) -> Health:
    """Of the account in *row*, as `pipeline.ledger.views` has it."""
    why = _why_not(connection, row)
    return Health(usable=why is None, why=why, missing_scopes=_missing(connection, workflows, row))


def _key(row: Mapping[str, Any]) -> AccountKey:
    return AccountKey(tenant=row["tenant_id"], connection=row["connection_id"], principal=row["principal_id"])


def _why_not(connection: Connection, row: Mapping[str, Any]) -> str | None:
    state = AccountState(row["state"])
    if state is AccountState.PENDING:
        return "nobody has consented yet"
    if state is not AccountState.ACTIVE:
        return row["reason"] or f"it is {state.replace('_', ' ')}"
    key = _key(row)
    ruled_out = revoked_since(connection, grant_scopes(key), row["consented"] or 0)
    if ruled_out is not None:
        return ruled_out.reason
    paused = paused_reason(connection, key.connection)
    return None if paused is None else f"its provider connection is paused: {paused}"


def _missing(connection: Connection, workflows: Registry, row: Mapping[str, Any]) -> tuple[str, ...]:
    """What the workflows that are switched on, and the jobs that wait for it, need and the grant has not."""
    on = select(workflow_settings.c.workflow).where(
        workflow_settings.c.tenant_id == row["tenant_id"], workflow_settings.c.enabled
    )
    waiting = select(jobs.c.workflow).where(jobs.c.waits_for == consent_of(_key(row)), jobs.c.state == JobState.WAITING)
    names = {*connection.execute(on).scalars(), *connection.execute(waiting).scalars()}
    whose = USER if row["kind"] == PrincipalKind.USER else SERVICE
    needed = {
        scope
        for name in names
        if (workflow := workflows.find(name)) is not None
        for action, who in workflow.uses.items()
        if who & whose and action.facts.provider == row["provider"]
        for scope in action.facts.scopes
    }
    granted, profile = row["scopes"] or (), PROFILES.get(row["provider"])
    return tuple(sorted(needed - (profile.covered(granted) if profile else set(granted))))
