"""Abilities of agents acting as a person, told before consent: the actions of enabled workflows.

An action's docstring begins with a clause that reads as what it does ("File an issue."); people see that clause.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from identity.accounts.grants import get_grant
from identity.accounts.states import find_account
from identity.agents.api_keys import executors
from identity.model import AccountKey, AccountState, Effect, ProviderConnection
from identity.providers import PROFILES, profile_of
from pipeline.action import Action
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.authoring.tool_workflows import is_of_a_tool
from pipeline.authoring.uses import USER
from pipeline.jobs.awaited import consent_of
from pipeline.states import JobState
from pipeline.tables import jobs, workflow_settings


@dataclass(frozen=True, kw_only=True)
class Ability:
    """One thing that agents may do in a person's name."""

    does: str
    effect: Effect


def in_words(action: type[Action[Any]]) -> str:
    """Return the first clause of the action's docstring."""
    said = inspect.cleandoc(action.__doc__ or action.__name__)
    return re.split(r"[.:;,](?:\s|$)|\n", said, maxsplit=1)[0].strip()


def abilities(
    connection: Connection, workflows: Registry, *, tenant: str, provider: str, now: datetime
) -> tuple[Ability, ...]:
    """Return what the tenant's workflows, and its agents by the API, may do at *provider* as the person.

    Actions that change something come first.
    """
    enabled = select(workflow_settings.c.workflow).where(
        workflow_settings.c.tenant_id == tenant, workflow_settings.c.enabled
    )
    switched_on = set(connection.execute(enabled).scalars())
    found = {
        Ability(does=in_words(action), effect=action.facts.effect)
        for workflow in workflows
        if workflow.name in switched_on
        for action in _as_user(workflow, provider)
    } | {
        Ability(does=in_words(action), effect=action.facts.effect)
        for caller in executors(connection, tenant, now=now)
        for name, action in workflows.tools.items()
        if action.facts.provider == provider and caller.may_execute(name)
    }
    order = [Effect.HIGH_RISK, Effect.WRITE, Effect.READ]
    return tuple(sorted(found, key=lambda ability: (order.index(ability.effect), ability.does)))


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Work done once a person has connected, and how many jobs."""

    does: str
    times: int


def waiting_for(connection: Connection, workflows: Registry, key: AccountKey) -> tuple[Waiting, ...]:
    """Return what waits for this very consent, most frequent first: an agent told so may have asked repeatedly."""
    found = connection.execute(
        select(jobs.c.workflow, func.count())
        .where(jobs.c.waits_for == consent_of(key), jobs.c.state == JobState.WAITING)
        .group_by(jobs.c.workflow)
    )
    waits = [Waiting(does=_of_workflow(workflows, name), times=times) for name, times in found]
    return tuple(sorted(waits, key=lambda one: (-one.times, one.does)))


def _of_workflow(workflows: Registry, name: str) -> str:
    workflow = workflows.find(name) if is_of_a_tool(name) else None
    return f"The workflow {name}" if workflow is None else in_words(next(iter(workflow.uses)))


def scopes_to_ask(connection: Connection, key: AccountKey, owner: ProviderConnection) -> tuple[str, ...]:
    """Return the scopes a connect asks for: those of a valid consent, and those waiting jobs lack.

    Without a valid consent, those the provider connection lists as well.
    """
    account = find_account(connection, key)
    grant = get_grant(connection, account.id) if account else None
    holds = account is not None and account.state is AccountState.ACTIVE and grant is not None
    asked = dict.fromkeys((*(() if holds else owner.scopes), *(grant.scopes if grant else ())))
    waiting = select(jobs.c.lacks).where(
        jobs.c.waits_for == consent_of(key), jobs.c.state == JobState.WAITING, jobs.c.lacks.is_not(None)
    )
    needed = {scope for lacks in connection.execute(waiting).scalars() for scope in lacks}
    return (*asked, *sorted(needed - profile_of(PROFILES, owner.provider).covered(asked)))


def _as_user(workflow: Workflow, provider: str) -> list[type[Action[Any]]]:
    return [action for action, who in workflow.uses.items() if who & USER and action.facts.provider == provider]
