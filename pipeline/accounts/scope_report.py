"""Which scopes accounts were granted, which were used lately, and which anything that is switched on needs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from identity.api_keys import executors
from identity.model import AccountState, Credential, PrincipalKind
from identity.narrowing import BOUND_BY_SCOPES
from identity.providers import PROFILES, profile_of
from identity.tables import accounts, grants, principals
from pipeline.accounts.obstacles import obstacles
from pipeline.action import Action
from pipeline.tables import attempts, steps, workflow_settings
from pipeline.uses import SERVICE, USER, Who
from pipeline.workflow import Registry


@dataclass(frozen=True, kw_only=True)
class AccountScopes:
    """One account's. *unused*: granted, and no step of the time asked for it.

    *idle*: granted, and nothing needs it, nor does one that is needed include it: it can be taken away.
    """

    account: str
    tenant: str
    principal: str
    kind: PrincipalKind
    provider: str
    credential: Credential
    granted: tuple[str, ...]
    used: tuple[str, ...]
    unused: tuple[str, ...]
    idle: tuple[str, ...]
    whole: bool  # an installation's tokens are for every repository it has

    @property
    def broad(self) -> bool:
        """A service's credential that reaches further than it has to: what is stolen with it is everybody's."""
        return self.kind is PrincipalKind.SERVICE and (bool(self.idle) or self.whole)


def scope_report(
    connection: Connection,
    workflows: Registry,
    *,
    tenant: str | None,
    since: datetime | None,
    now: datetime,
    kind: PrincipalKind | None = None,
) -> list[AccountScopes]:
    """The active accounts of a tenant, or all, of people, of services, or both; without what is revoked from above.

    *since*: what counts as lately; None: nothing does, and nobody looks what was tried.
    """
    actions = workflows.actions
    needed: dict[tuple[str, PrincipalKind, str], set[str]] = {}
    found = []
    for row in _accounts(connection, tenant, kind):
        key = (row.tenant_id, PrincipalKind(row.kind), row.provider)
        if key not in needed:
            needed[key] = _needed(connection, workflows, *key, now=now)
        did = set() if since is None else _done(connection, row.id, since)
        used = {scope for name in did if name in actions for scope in actions[name].facts.scopes}
        found.append(_told(row, used, needed[key]))
    return found


def _accounts(connection: Connection, tenant: str | None, kind: PrincipalKind | None) -> list[Row[Any]]:
    statement = (
        select(accounts, principals.c.kind, grants.c.scopes, grants.c.consented)
        .join(principals, principals.c.id == accounts.c.principal_id)
        .join(grants, grants.c.account_id == accounts.c.id)
        .where(accounts.c.state == AccountState.ACTIVE)
        .order_by(accounts.c.tenant_id, accounts.c.connection_id, accounts.c.principal_id)
    )
    if tenant is not None:
        statement = statement.where(accounts.c.tenant_id == tenant)
    if kind is not None:
        statement = statement.where(principals.c.kind == kind)
    rows = connection.execute(statement).all()
    above = obstacles(connection, [dict(row._mapping) for row in rows])  # noqa: SLF001 - its documented name
    return [row for row, found in zip(rows, above, strict=True) if found is None or not found.revoked]


def _done(connection: Connection, account: str, since: datetime) -> set[str]:
    """The actions that were tried with it since then: behind the newest attempt of before, by the numbers they have."""
    mine = attempts.c.account_id == account
    ordered = select(attempts.c.opened).where(mine).order_by(attempts.c.opened.desc()).limit(1)
    newest_before = ordered.where(attempts.c.opened_at < since).scalar_subquery()
    tried = (
        select(steps.c.action)
        .join(attempts, attempts.c.step_id == steps.c.id)
        .where(mine, attempts.c.opened > func.coalesce(newest_before, 0))
        .distinct()
    )
    return set(connection.execute(tried).scalars())


def switched_on(connection: Connection, workflows: Registry, tenant: str, who: Who) -> list[type[Action[Any]]]:
    """The actions that the tenant's switched-on workflows carry out, or undo, as *who*."""
    enabled = select(workflow_settings.c.workflow).where(
        workflow_settings.c.tenant_id == tenant, workflow_settings.c.enabled
    )
    return [
        action
        for name in connection.execute(enabled).scalars()
        if (workflow := workflows.find(name)) is not None
        for action, declared in [*workflow.uses.items(), *workflow.compensating.uses.items()]
        if declared & who
    ]


def _needed(
    connection: Connection, workflows: Registry, tenant: str, kind: PrincipalKind, provider: str, *, now: datetime
) -> set[str]:
    """What the tenant's switched-on workflows, and the tools its agents may ask for, need of such an account."""
    wanted = switched_on(connection, workflows, tenant, USER if kind is PrincipalKind.USER else SERVICE)
    wanted += [
        action
        for caller in executors(connection, tenant, now=now)
        for name, action in workflows.tools.items()
        if caller.may_execute(name)
    ]
    return {scope for action in wanted if action.facts.provider == provider for scope in action.facts.scopes}


def _told(row: Row[Any], used: set[str], needed: set[str]) -> AccountScopes:
    granted = tuple(row.scopes)
    return AccountScopes(
        account=row.id,
        tenant=row.tenant_id,
        principal=row.principal_id,
        kind=PrincipalKind(row.kind),
        provider=row.provider,
        credential=Credential(row.credential),
        granted=granted,
        used=tuple(sorted(used)),
        unused=_serving_none(row.provider, granted, used),
        idle=_removable(row.provider, granted, needed),
        whole=row.credential == Credential.INSTALLATION and row.resources is None,
    )


def _serving_none(provider: str, granted: Iterable[str], wanted: set[str]) -> tuple[str, ...]:
    """The granted scopes that include none of those wanted."""
    profile = profile_of(PROFILES, provider)
    return tuple(sorted(scope for scope in granted if not profile.covered([scope]) & wanted))


def _removable(provider: str, granted: Iterable[str], needed: set[str]) -> tuple[str, ...]:
    """Those that serve nothing needed, without those that one that does includes: these it would allow all the same."""
    idle = _serving_none(provider, granted, needed)
    kept = profile_of(PROFILES, provider).covered(scope for scope in granted if scope not in idle)
    return tuple(scope for scope in idle if scope not in kept)


def what_to_do(one: AccountScopes) -> str:
    """About a service's credential that reaches too far."""
    if one.idle:
        idle = f"nothing that is switched on needs {', '.join(one.idle)}"
        kept = [scope for scope in one.granted if scope not in one.idle]
        if not kept and one.credential in BOUND_BY_SCOPES:
            return f"{idle}, which is all it has: switch on what is to use it, or `aswhom revoke account {one.account}`"
        command = f"aswhom accounts narrow {one.account} --scopes {shlex.quote(','.join(kept))}"
        return f"{idle}: narrow it with `{command}`, and at the provider"
    return "its tokens are for every repository: name those it needs with `aswhom accounts add-installation`"
