"""Tenants, agents, principals, and the aliases by which providers name the same people."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from shlex import quote

from sqlalchemy import Connection, Row, Select, String, bindparam, delete, func, select, update

from identity.errors import BadInput, Misconfigured
from identity.model import Principal, PrincipalKind
from identity.sql.columns import is_one
from identity.sql.prepared import Prepared
from identity.sql.rows import insert_new
from identity.tables import agents, aliases, principals, provider_connections, tenants

# Built once: every acceptance runs these.
_SERVICES = Prepared(
    select(principals)
    .where(principals.c.tenant_id == bindparam("tenant"), principals.c.kind == PrincipalKind.SERVICE)
    .limit(2)
)
_SERVICE = (principals.c.tenant_id == bindparam("tenant")) & (is_one(principals.c.kind, PrincipalKind.SERVICE))
# For a statement that reads other rows of the `tenant` too: if both return the same id, it is the only service
# principal.
FIRST_SERVICE = select(func.min(principals.c.id)).where(_SERVICE).scalar_subquery()
LAST_SERVICE = select(func.max(principals.c.id)).where(_SERVICE).scalar_subquery()


def _alias(provider: str, external: str) -> Select[str]:
    of_provider = bindparam(provider, type_=String)
    # The name by which aliases know the users of a provider connection, `ProviderConnection.people`.
    people = (
        select(provider_connections.c.config["people"].as_string())
        .where(
            provider_connections.c.id == bindparam("through", type_=String),
            provider_connections.c.provider == of_provider,
        )
        .scalar_subquery()
    )
    return select(aliases.c.principal_id).where(
        aliases.c.provider == func.coalesce(people, of_provider), aliases.c.external_id == bindparam(external)
    )


def alias_of(provider: str, external: str) -> Select[str]:
    """Return the query behind `resolve_alias`, for a statement that binds these two, `tenant` and `through`."""
    return _alias(provider, external).where(aliases.c.tenant_id == bindparam("tenant"))


_ALIAS = alias_of("of_provider", "external")
BY_ADMIN = "admin:"  # prefix of `made_by` for aliases that an admin made
_ALIAS_BY_ADMIN = _ALIAS.where(aliases.c.made_by.startswith(BY_ADMIN))
_ALIASES = _alias("of_provider", "external")
_ALIASES_BY_ADMIN = _ALIASES.where(aliases.c.made_by.startswith(BY_ADMIN))


def checked_id(value: str) -> str:
    """Return *value*. Raises BadInput for one with a slash or spaces: ids are parts of scope keys and URLs."""
    if not value or "/" in value or not value.isprintable() or " " in value:
        raise BadInput(f"{value!r} cannot be an id: use letters, digits, '-', '_', '.' and ':'")
    return value


def ensure_tenant(connection: Connection, *, id: str, name: str, now: datetime) -> bool:
    """Insert the tenant's row unless it exists; True if it was inserted. Raises BadInput.

    Its principals are `<id>.<name>`: with a dot in its id, another tenant could give a user of its own the same name.
    """
    if "." in id:
        raise BadInput(f"{id!r} cannot be a tenant's id: it holds no '.', which ends it in the ids of its people")
    return insert_new(connection, tenants, {"id": checked_id(id), "name": name, "created_at": now})


def ensure_agent(
    connection: Connection,
    *,
    id: str,
    tenant: str | None,
    name: str,
    now: datetime,
) -> None:
    """Insert the agent's row unless it exists. A tenant of None makes it an agent of the platform."""
    insert_new(connection, agents, {"id": checked_id(id), "tenant_id": tenant, "name": name, "created_at": now})


def ensure_principal(
    connection: Connection,
    *,
    id: str,
    tenant: str,
    kind: PrincipalKind,
    name: str,
    now: datetime,
) -> Principal:
    """Return the tenant's principal of that kind and name; insert it as *id* if it is missing.

    Raises BadInput if the id is taken or belongs under another tenant's id. The message does not say which, because the
    caller may not be allowed to know.
    """
    row = {"id": checked_id(id), "tenant_id": tenant, "kind": kind, "name": name, "created_at": now}
    found = select(principals).where(
        principals.c.tenant_id == tenant, principals.c.kind == kind, principals.c.name == name
    )
    there = connection.execute(found).one_or_none()
    if there is None and _whose(connection, id) in (None, tenant):
        insert_new(connection, principals, row)
        there = connection.execute(found).one_or_none()
    if there is None:
        raise BadInput(f"the id {id} cannot be given to a principal of {tenant}: choose another name")
    return _principal(there)


def _whose(connection: Connection, id: str) -> str | None:
    """Return the tenant whose id prefixes the principal's *id*: the longest, since old tenant ids may hold a dot."""
    parts = id.split(".")
    above = [".".join(parts[:count]) for count in range(1, len(parts))]
    found = connection.execute(select(tenants.c.id).where(tenants.c.id.in_(above))).scalars()
    return max(found, key=len, default=None)


def get_principal(connection: Connection, principal: str) -> Principal | None:
    row = connection.execute(select(principals).where(principals.c.id == principal)).one_or_none()
    return None if row is None else _principal(row)


def service_principal(connection: Connection, tenant: str) -> Principal:
    """Return the tenant's one service principal. Raises Misconfigured if it has none, or more than one."""
    rows = _SERVICES.run(connection, {"tenant": tenant}).all()
    only_service(tenant, [row.id for row in rows])
    return _principal(rows[0])


def only_service(tenant: str, found: Sequence[str]) -> str:
    """Return the only one of a tenant's service principals *found*.

    Raises Misconfigured if there is none, or more than one.
    """
    if len(found) != 1:
        count = "no" if not found else "more than one"
        raise Misconfigured(f"tenant {tenant} has {count} service principal: it needs exactly one to act as a service")
    return found[0]


def link_alias(
    connection: Connection,
    *,
    tenant: str,
    provider: str,
    external_id: str,
    principal: str,
    login: str | None,
    made_by: str,
    now: datetime,
) -> bool:
    """Record that a provider's user is this principal. False if they are linked to another principal of the tenant.

    Called by a completed connect (`connect:<account>`) or an admin (`admin:<who>`), never on a guess.
    """
    row = {
        "tenant_id": tenant,
        "provider": provider,
        "external_id": external_id,
        "principal_id": principal,
        "login": login,
        "made_by": made_by,
        "created_at": now,
    }
    if insert_new(connection, aliases, row):
        return True
    same = (
        (aliases.c.tenant_id == tenant)
        & (aliases.c.provider == provider)
        & (aliases.c.external_id == external_id)
        & (aliases.c.principal_id == principal)
    )
    # An admin's statement outranks a connect, so a later connect does not overwrite it.
    said = {"made_by": made_by} if made_by.startswith(BY_ADMIN) else {}
    return connection.execute(update(aliases).where(same).values(login=login, **said)).rowcount == 1


def unlink_alias(connection: Connection, *, tenant: str, provider: str, external_id: str) -> str | None:
    """Unlink a provider's user. Return the principal that they were linked to; None if there was no link."""
    whose = (aliases.c.tenant_id == tenant) & (aliases.c.provider == provider) & (aliases.c.external_id == external_id)
    return connection.execute(delete(aliases).where(whose).returning(aliases.c.principal_id)).scalar_one_or_none()


def to_unlink(tenant: str, provider: str, external_id: str) -> str:
    """Return the command that unlinks it. The id is the provider's, so it is quoted for a shell."""
    named = f"--tenant {quote(tenant)} --provider {quote(provider)} --external-id {quote(external_id)}"
    return f"aswhom aliases remove {named}"


def resolve_alias(
    connection: Connection,
    tenant: str,
    provider: str,
    external_id: str,
    *,
    through: str | None = None,
    by_admin: bool = False,
) -> str | None:
    """Return the id of the principal linked to a provider's *external_id*; with *by_admin*, only a link an admin made.

    *through* is the provider connection that named them, since the server behind it may number its users itself.
    """
    row = {"tenant": tenant, "of_provider": provider, "external": external_id, "through": through}
    return connection.execute(_ALIAS_BY_ADMIN if by_admin else _ALIAS, row).scalar_one_or_none()


def resolve_aliases(
    connection: Connection,
    tenants: Collection[str],
    provider: str,
    external_id: str,
    *,
    through: str | None = None,
    by_admin: bool = False,
) -> list[str]:
    """Return the principals that `resolve_alias` finds, over all of these tenants."""
    row = {"of_provider": provider, "external": external_id, "through": through}
    found = (_ALIASES_BY_ADMIN if by_admin else _ALIASES).where(aliases.c.tenant_id.in_(tenants))
    return list(connection.execute(found, row).scalars())


def _principal(row: Row[tuple[object, ...]]) -> Principal:
    return Principal(id=row.id, tenant=row.tenant_id, kind=PrincipalKind(row.kind), name=row.name)
