"""Scope report: which scopes accounts were granted, which were used recently, and which anything enabled needs."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Row, func, select, tuple_

from identity.accounts.narrowing import BOUND_BY_SCOPES
from identity.agents.api_keys import executors
from identity.errors import TookTooLong
from identity.model import AccountState, Credential, PrincipalKind
from identity.providers import PROFILES, profile_of
from identity.tables import accounts, grants, principals
from pipeline.accounts.obstacles import obstacles
from pipeline.action import Action
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import SERVICE, USER, Who
from pipeline.tables import attempts, steps, workflow_settings

T = TypeVar("T")
_PAGE = 500  # accounts per read at first: a long snapshot delays vacuuming, and a statement has a time limit
_Needed = dict[tuple[str, PrincipalKind, str], set[str]]  # by tenant, kind of principal and provider


class Reads(Protocol):
    """A ledger that can be read."""

    def read(self, fn: Callable[[Connection], T]) -> T: ...


@dataclass(frozen=True, kw_only=True)
class AccountScopes:
    """The scopes of one account. *unused*: granted, but no step in the period needed it.

    *idle*: granted, but nothing needs it and no needed scope includes it, so it can be taken away.
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
    whole: bool  # an installation whose tokens cover every repository it has

    @property
    def broad(self) -> bool:
        """True for a service's credential that reaches further than needed: a thief would get all of it."""
        return self.kind is PrincipalKind.SERVICE and (bool(self.idle) or self.whole)


def scope_report(
    ledger: Reads,
    workflows: Registry,
    *,
    tenant: str | None,
    since: datetime | None,
    now: datetime,
    kind: PrincipalKind | None = None,
) -> Iterator[AccountScopes]:
    """Yield the active accounts of a tenant or of all, optionally of one kind, without those revoked from above.

    Reads some hundreds at a time, ordered by owner, and fewer once a read takes too long. *since*: the start of the
    recent period; None: no use is looked up.
    """
    needed: _Needed = {}
    page = partial(_page, workflows=workflows, needed=needed, tenant=tenant, since=since, now=now, kind=kind)
    limit = _PAGE
    after: tuple[str, ...] | None = ()
    while after is not None:
        try:
            found, after = ledger.read(partial(page, after=after, limit=limit))
        except TookTooLong:
            if limit == 1:
                raise
            limit = max(limit // 4, 1)  # the accounts may have very many attempts
        else:
            yield from found


def _page(
    connection: Connection,
    *,
    workflows: Registry,
    needed: _Needed,
    tenant: str | None,
    since: datetime | None,
    now: datetime,
    kind: PrincipalKind | None,
    after: tuple[str, ...],
    limit: int,
) -> tuple[list[AccountScopes], tuple[str, ...] | None]:
    """Return some accounts, and the place to go on from; None: there are no more. *needed*: a cache, added to."""
    rows, last = _accounts(connection, tenant, kind, after, limit)
    did = {} if since is None else _done(connection, [row.id for row in rows], since)
    actions = workflows.actions
    found = []
    for row in rows:
        key = (row.tenant_id, PrincipalKind(row.kind), row.provider)
        if key not in needed:
            needed[key] = _needed(connection, workflows, *key, now=now)
        tried = did.get(row.id, ())
        used = {scope for name in tried if name in actions for scope in actions[name].facts.scopes}
        found.append(_told(row, used, needed[key]))
    return found, last


def _accounts(
    connection: Connection, tenant: str | None, kind: PrincipalKind | None, after: tuple[str, ...], limit: int
) -> tuple[list[Row[Any]], tuple[str, ...] | None]:
    whose = (accounts.c.tenant_id, accounts.c.connection_id, accounts.c.principal_id)
    statement = (
        select(accounts, principals.c.kind, grants.c.scopes, grants.c.consented)
        .join(principals, principals.c.id == accounts.c.principal_id)
        .join(grants, grants.c.account_id == accounts.c.id)
        .where(accounts.c.state == AccountState.ACTIVE)
        .order_by(*whose)
        .limit(limit)
    )
    if after:
        statement = statement.where(tuple_(*whose) > after)
    if tenant is not None:
        statement = statement.where(accounts.c.tenant_id == tenant)
    if kind is not None:
        statement = statement.where(principals.c.kind == kind)
    rows = connection.execute(statement).all()
    above = obstacles(connection, [dict(row._mapping) for row in rows])  # noqa: SLF001 - its documented name
    left = [row for row, found in zip(rows, above, strict=True) if found is None or not found.revoked]
    if len(rows) < limit:
        return left, None
    return left, (rows[-1].tenant_id, rows[-1].connection_id, rows[-1].principal_id)


def _done(connection: Connection, mine: Sequence[str], since: datetime) -> Mapping[str, set[str]]:
    """Return the actions each account tried since then: those numbered after its newest earlier attempt."""
    ordered = select(attempts.c.opened).where(attempts.c.account_id == accounts.c.id).order_by(attempts.c.opened.desc())
    newest_before = ordered.where(attempts.c.opened_at < since).limit(1).scalar_subquery()
    # OFFSET 0 keeps the subquery from being evaluated again for every attempt found.
    began = (
        select(accounts.c.id, func.coalesce(newest_before, 0).label("opened"))
        .where(accounts.c.id.in_(mine))
        .offset(0)
        .subquery()
    )
    tried = (
        select(began.c.id, steps.c.action)
        .join(attempts, (attempts.c.account_id == began.c.id) & (attempts.c.opened > began.c.opened))
        .join(steps, steps.c.id == attempts.c.step_id)
        .distinct()
    )
    found = defaultdict[str, set[str]](set)
    for account, action in connection.execute(tried):
        found[account].add(action)
    return found


def switched_on(connection: Connection, workflows: Registry, tenant: str, who: Who) -> list[type[Action[Any]]]:
    """Return the actions that the tenant's enabled workflows carry out, or compensate, as *who*."""
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
    """Return the scopes such an account needs for the tenant's enabled workflows and its agents' tools."""
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
    """Return the granted scopes that include none of those wanted."""
    profile = profile_of(PROFILES, provider)
    return tuple(sorted(scope for scope in granted if not profile.covered([scope]) & wanted))


def _removable(provider: str, granted: Iterable[str], needed: set[str]) -> tuple[str, ...]:
    """Return granted scopes that serve nothing needed.

    One that a kept scope includes is not listed: removing it changes nothing, as the kept scope still allows the same.
    """
    idle = _serving_none(provider, granted, needed)
    kept = profile_of(PROFILES, provider).covered(scope for scope in granted if scope not in idle)
    return tuple(scope for scope in idle if scope not in kept)


def what_to_do(one: AccountScopes) -> str:
    """Return the advice for a service's credential that reaches too far."""
    if one.idle:
        idle = f"nothing that is switched on needs {', '.join(one.idle)}"
        kept = [scope for scope in one.granted if scope not in one.idle]
        if not kept and one.credential in BOUND_BY_SCOPES:
            return f"{idle}, which is all it has: switch on what is to use it, or `aswhom revoke account {one.account}`"
        command = f"aswhom accounts narrow {one.account} --scopes {shlex.quote(','.join(kept))}"
        return f"{idle}: narrow it with `{command}`, and at the provider"
    return "its tokens are for every repository: name those it needs with `aswhom accounts add-installation`"
