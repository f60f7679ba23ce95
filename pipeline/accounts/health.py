"""Health of accounts: whether a step could open with one now, why not, and which scopes it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from identity.model import AccountKey, AccountState, PrincipalKind
from identity.providers import PROFILES
from pipeline.accounts.obstacles import Obstacle, obstacles, unconfirmed
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import SERVICE, USER
from pipeline.jobs.awaited import consent_of
from pipeline.states import JobState
from pipeline.tables import jobs, workflow_settings


@dataclass(frozen=True, kw_only=True)
class Health:
    """The health of an account."""

    usable: bool
    why: str | None  # if it is not usable
    missing_scopes: tuple[str, ...]


def health(connection: Connection, workflows: Registry, row: Mapping[str, Any]) -> Health:
    """Return the health of the account in *row*, as `pipeline.views.tenant_views` reads it."""
    (found,) = healths(connection, workflows, [row])
    return found


def healths(connection: Connection, workflows: Registry, rows: Sequence[Mapping[str, Any]]) -> list[Health]:
    """Return the health of several accounts, in as many statements as for one."""
    names, waiting = _workflows(connection, rows), unconfirmed(connection, rows)
    found = []
    for row, obstacle in zip(rows, obstacles(connection, rows), strict=True):
        why = _why_not(row, obstacle, waiting.get(row["id"]))
        missing = _missing(workflows, row, names[str(AccountKey.of(row))])
        found.append(Health(usable=why is None, why=why, missing_scopes=missing))
    return found


def _workflows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, AbstractSet[str]]:
    """Return, per account, the workflows enabled for its tenant, and those of jobs waiting for the account."""
    settings, keys = workflow_settings.c, {consent_of(AccountKey.of(row)): str(AccountKey.of(row)) for row in rows}
    of_tenants = settings.tenant_id.in_({row["tenant_id"] for row in rows})
    on = connection.execute(select(settings.tenant_id, settings.workflow).where(of_tenants, settings.enabled)).all()
    awaited = jobs.c.waits_for.in_(keys) & (jobs.c.state == JobState.WAITING)
    waiting = connection.execute(select(jobs.c.waits_for, jobs.c.workflow).where(awaited).distinct()).all()
    found = {str(AccountKey.of(row)): {one.workflow for one in on if one.tenant_id == row["tenant_id"]} for row in rows}
    for one in waiting:
        found[keys[one.waits_for]].add(one.workflow)
    return found


def _why_not(row: Mapping[str, Any], obstacle: Obstacle | None, waiting: str | None) -> str | None:
    state = AccountState(row["state"])
    if state is AccountState.PENDING:
        return waiting or "nobody has consented yet"
    if state is not AccountState.ACTIVE:
        why = row["reason"] or f"it is {state.replace('_', ' ')}"
        return f"{why}; {waiting}" if waiting else why
    return None if obstacle is None else obstacle.reason


def _missing(workflows: Registry, row: Mapping[str, Any], names: AbstractSet[str]) -> tuple[str, ...]:
    """Return the scopes that enabled workflows and waiting jobs need and the grant lacks."""
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
