"""Scopes named by an operator: a mistyped key must not look like a success."""

from __future__ import annotations

from sqlalchemy import Connection

from identity.errors import BadInput
from identity.model import AccountKey, Scope, ScopeKind
from identity.tables import principals, provider_connections, tenants
from pipeline.authoring.registry import Registry
from pipeline.views import operator_queries


def named_scope(
    connection: Connection, workflows: Registry, kind: ScopeKind, key: str, *, tenant: str | None
) -> tuple[Scope, str | None]:
    """Return the scope and its tenant; None: the platform's. *tenant*: of a user or agent whose *key* is only its
    name.

    Raises BadInput if it does not exist.
    """
    match kind:
        case ScopeKind.ACCOUNT:
            row = operator_queries.any_account(connection, key)
            return AccountKey.of(row).scope, row["tenant_id"]
        case ScopeKind.USER:
            id = f"{tenant}.{key.removeprefix(f'{tenant}.')}" if tenant else key
            row = operator_queries.one(connection, principals, id, what="user", listed_by="users list")
            return Scope(kind=kind, key=row["id"]), row["tenant_id"]
        case ScopeKind.CONNECTION:
            row = operator_queries.one(
                connection, provider_connections, key, what="provider connection", listed_by="connections list"
            )
            return Scope(kind=kind, key=row["id"]), row["tenant_id"]
        case ScopeKind.AGENT:
            return agent_scope(connection, workflows, key, tenant=tenant)
        case ScopeKind.TENANT:
            row = operator_queries.one(connection, tenants, key, what="tenant", listed_by="tenants list")
            return Scope(kind=kind, key=row["id"]), row["id"]


def agent_scope(
    connection: Connection, workflows: Registry, id: str, *, tenant: str | None = None
) -> tuple[Scope, str | None]:
    """Return the agent's scope and tenant; an agent may be revoked or stopped before its first job.

    The agent of an API key is found by its name alone too: `support-bot` for `acme.support-bot`, if *tenant* is acme or
    no other tenant has one. Raises BadInput for one that no workflow declares and that never had a job or an API key.
    """
    known = {row["id"]: row["tenant_id"] for row in operator_queries.all_agents(connection)}
    there = {*known, *(workflow.agent for workflow in workflows)}
    if id in there and tenant in (None, known.get(id)):
        named = [id]
    else:
        named = [one for one, owner in known.items() if one == f"{owner}.{id}" and tenant in (None, owner)]
    if len(named) > 1:
        raise BadInput(f"{len(named)} tenants have an agent {id}: say which, of {', '.join(sorted(named))}")
    if not named:
        raise BadInput(f"there is no agent {id}{f' of {tenant}' if tenant else ''}: `aswhom agents list` shows them")
    return Scope(kind=ScopeKind.AGENT, key=named[0]), known.get(named[0])
