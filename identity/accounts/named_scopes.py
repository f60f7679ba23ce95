"""The scopes that one tenant may revoke, by the names it has for them."""

from __future__ import annotations

from sqlalchemy import Connection, or_, select

from identity.accounts.states import is_account
from identity.errors import BadInput
from identity.model import AccountKey, Scope, ScopeKind
from identity.tables import accounts, agents, principals, provider_connections


def scope_of_tenant(connection: Connection, tenant: str, kind: ScopeKind, name: str) -> Scope:
    """Return the scope that *tenant* means by *name*.

    Raises BadInput, also for one that is the platform's or another tenant's.
    """
    match kind:
        case ScopeKind.TENANT:
            keys = [tenant] if name == tenant else []
        case ScopeKind.AGENT:
            which = (agents.c.id == name) & (agents.c.tenant_id == tenant)
            keys = list(connection.execute(select(agents.c.id).where(which)).scalars())
        case ScopeKind.CONNECTION:
            which = (provider_connections.c.id == name) & (provider_connections.c.tenant_id == tenant)
            keys = list(connection.execute(select(provider_connections.c.id).where(which)).scalars())
        case ScopeKind.USER:
            keys = _principals(connection, tenant, name)
        case ScopeKind.ACCOUNT:
            keys = _accounts(connection, tenant, name)
    if len(keys) != 1:
        what = "no" if not keys else "more than one"
        raise BadInput(f"tenant {tenant} has {what} {kind} {name!r} of its own")
    return Scope(kind=kind, key=keys[0])


def _principals(connection: Connection, tenant: str, name: str) -> list[str]:
    which = (principals.c.tenant_id == tenant) & or_(principals.c.id == name, principals.c.name == name)
    found = list(connection.execute(select(principals.c.id).where(which)).scalars())
    return [name] if name in found else found


def _accounts(connection: Connection, tenant: str, name: str) -> list[str]:
    columns = (accounts.c.tenant_id, accounts.c.connection_id, accounts.c.principal_id)
    rows = connection.execute(select(*columns).where(accounts.c.tenant_id == tenant, is_account(name)))
    return [str(AccountKey.of(row)) for row in rows]
