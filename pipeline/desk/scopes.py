"""Scopes named by an operator: a mistyped key must not look like a success."""

from __future__ import annotations

from sqlalchemy import Connection

from identity.errors import BadInput
from identity.model import AccountKey, Scope, ScopeKind
from identity.tables import principals, provider_connections, tenants
from pipeline.authoring.registry import Registry
from pipeline.ledger import operator_queries


def named_scope(
    connection: Connection, workflows: Registry, kind: ScopeKind, key: str, *, tenant: str | None
) -> tuple[Scope, str | None]:
    """Return the scope and its tenant; None: the platform's. *tenant*: of a user whose *key* is only their name.

    Raises BadInput if it does not exist.
    """
    match kind:
        case ScopeKind.ACCOUNT:
            row = operator_queries.any_account(connection, key)
            return AccountKey.of(row).scope, row["tenant_id"]
        case ScopeKind.USER:
            id = f"{tenant}.{key.removeprefix(f'{tenant}.')}" if tenant else key
            row = operator_queries.one(connection, principals, id, what="user", listed_by="tenants people")
            return Scope(kind=kind, key=row["id"]), row["tenant_id"]
        case ScopeKind.CONNECTION:
            row = operator_queries.one(
                connection, provider_connections, key, what="provider connection", listed_by="connections list"
            )
            return Scope(kind=kind, key=row["id"]), row["tenant_id"]
        case ScopeKind.AGENT:
            return agent_scope(connection, workflows, key)
        case ScopeKind.TENANT:
            row = operator_queries.one(connection, tenants, key, what="tenant", listed_by="tenants list")
            return Scope(kind=kind, key=row["id"]), row["id"]


def agent_scope(connection: Connection, workflows: Registry, id: str) -> tuple[Scope, str | None]:
    """Return the agent's scope and tenant; an agent may be revoked or stopped before its first job.

    Raises BadInput for one that no workflow declares and that never had a job or an API key.
    """
    known = {row["id"]: row["tenant_id"] for row in operator_queries.all_agents(connection)}
    if id not in known and id not in {workflow.agent for workflow in workflows}:
        raise BadInput(f"there is no agent {id}: `aswhom agents list` shows them")
    return Scope(kind=ScopeKind.AGENT, key=id), known.get(id)
