"""The registry of provider connections: client registrations with providers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    not_,
    or_,
    select,
    update,
)

from identity.errors import BadInput, Misconfigured
from identity.model import ProviderConnection, ScopeKind
from identity.principals import checked_id
from identity.sql.prepared import Prepared
from identity.sql.rows import Part, insert_new
from identity.sql.sequence import next_number
from identity.tables import connection_secrets, places_seen, provider_connections, scopes

ALL_BUT_ONE = "all but one are stopped (`aswhom connections stop ID`) or removed"

# Built once: every delivery runs these.
_BY_ID = Prepared(select(provider_connections).where(provider_connections.c.id == bindparam("owner")))
_ADDRESS = select(provider_connections.c.api_url).where(provider_connections.c.id == bindparam("through"))
_PAUSED = Prepared(_BY_ID.statement.with_only_columns(provider_connections.c.paused_reason))
#: True if an admin has stopped the connection of a row.
IS_STOPPED = exists().where(
    scopes.c.kind == str(ScopeKind.CONNECTION), scopes.c.key == provider_connections.c.id, scopes.c.stopped.is_(True)
)
#: True if it fetches no tokens until an operator acts. A stopped connection, which may stay stopped, needs none.
NEEDS_OPERATOR = provider_connections.c.paused_reason.is_not(None) & not_(IS_STOPPED)
_FITTING = Prepared(
    select(provider_connections, IS_STOPPED.label("is_stopped"))
    .where(
        provider_connections.c.provider == bindparam("of_provider"),
        or_(provider_connections.c.tenant_id == bindparam("tenant"), provider_connections.c.tenant_id.is_(None)),
    )
    .order_by(provider_connections.c.id)
)


def add_connection(connection: Connection, owner: ProviderConnection, *, now: datetime) -> bool:
    """Register a provider connection; False if its id is taken."""
    row = {
        "id": checked_id(owner.id),
        "tenant_id": owner.tenant,
        "provider": owner.provider,
        "created_at": now,
        **_correctable(owner),
    }
    return insert_new(connection, provider_connections, row)


def get_connection(connection: Connection, owner: str) -> ProviderConnection:
    """Return the provider connection of that id. Raises Misconfigured."""
    row = _BY_ID.run(connection, {"owner": owner}).one_or_none()
    if row is None:
        raise Misconfigured(f"there is no provider connection {owner}")
    return connection_of(row)


def present_address() -> ScalarSelect[str]:
    """Return a subquery for the API address of the connection *through*, a parameter; NULL if it was removed."""
    return _ADDRESS.scalar_subquery()


def connection_for(connection: Connection, tenant: str, provider: str) -> ProviderConnection:
    """Return the tenant's own connection to a provider, or the platform's.

    Raises Misconfigured unless exactly one fits. If several fit, stopped ones are ignored: a new connection can replace
    a stopped one whose accounts are kept.
    """
    rows = _FITTING.run(connection, {"tenant": tenant, "of_provider": provider}).all()
    candidates = [row for row in rows if row.tenant_id is not None] or rows
    if not candidates:
        raise Misconfigured(
            f"tenant {tenant} has no provider connection to {provider}, and neither has the platform: "
            "`aswhom connections list` shows those there are"
        )
    running = [row for row in candidates if not row.is_stopped]
    for fitting in (candidates, running):
        if len(fitting) == 1:  # a single stopped connection is still selected, so that its use is refused as stopped
            return connection_of(fitting[0])
    which = f"provider connections to {provider} fit tenant {tenant}"
    if not running:
        ids = ", ".join(row.id for row in candidates)
        raise Misconfigured(f"several {which}, and all are stopped: {ids}: open one, `aswhom connections open ID`")
    ids = ", ".join(row.id for row in running)
    raise Misconfigured(f"several {which}: {ids}: none is used until {ALL_BUT_ONE}")


def fitting_connection(connection: Connection, tenant: str, name: str) -> ProviderConnection:
    """Return a provider connection by its id, or else the one of that provider that fits the tenant.

    Raises BadInput.
    """
    ids = connection.execute(select(provider_connections.c.id).where(provider_connections.c.id == name)).scalars()
    if ids.first() is None:
        return connection_for(connection, tenant, name)
    found = get_connection(connection, name)
    if found.tenant not in (None, tenant):
        raise BadInput(f"provider connection {name} belongs to another tenant than {tenant}")
    return found


def fitting_id(provider: str) -> Select[str | None]:
    """Return a query for the id that `connection_for` selects, or NULL; it binds *provider* and `tenant`."""
    columns = provider_connections.c
    own, shared = columns.tenant_id.is_not(None), columns.tenant_id.is_(None)
    has_own = func.count(columns.tenant_id) > 0

    def only(*which: ColumnElement[bool]) -> tuple[ColumnElement[bool], ColumnElement[str]]:
        id = case((and_(*which), columns.id))
        return func.count(id) == 1, func.min(id)

    of_own = case(only(own), only(own, not_(IS_STOPPED)))
    of_shared = case(only(shared), only(shared, not_(IS_STOPPED)))
    return select(case((has_own, of_own), else_=of_shared)).where(
        columns.provider == bindparam(provider),
        or_(columns.tenant_id == bindparam("tenant"), columns.tenant_id.is_(None)),
    )


def running_by_place(connection: Connection) -> Mapping[tuple[str, str | None], list[str]]:
    """Return the ids of connections that are not stopped, by provider and tenant; of several, none is used."""
    columns = provider_connections.c
    running = select(columns.provider, columns.tenant_id, columns.id).where(not_(IS_STOPPED)).order_by(columns.id)
    found: dict[tuple[str, str | None], list[str]] = {}
    for row in connection.execute(running):
        found.setdefault((row.provider, row.tenant_id), []).append(row.id)
    return found


def rewrite_connection(connection: Connection, owner: ProviderConnection) -> None:
    """Store new values of a connection from an operator, or its issuer; its id, provider and tenant stay."""
    rewritten = update(provider_connections).where(provider_connections.c.id == owner.id)
    connection.execute(rewritten.values(_correctable(owner)))


def remove_connection(connection: Connection, owner: str) -> None:
    """Delete a connection that nothing refers to, and its secrets."""
    connection.execute(delete(connection_secrets).where(connection_secrets.c.connection_id == owner))
    connection.execute(delete(places_seen).where(places_seen.c.connection_id == owner))
    connection.execute(delete(provider_connections).where(provider_connections.c.id == owner))


def paused_reason(connection: Connection, owner: str) -> str | None:
    """Return why no token is fetched through this connection, or None."""
    return _PAUSED.run(connection, {"owner": owner}).scalar_one_or_none()


def lock_against_references(connection: Connection, owner: str) -> None:
    """Wait for transactions that are writing rows that refer to it, and block new ones."""
    row = select(provider_connections.c.id).where(provider_connections.c.id == owner)
    connection.execute(row.with_for_update())  # FOR UPDATE: a foreign key's check takes FOR KEY SHARE


def lock_connection(connection: Connection, owner: str) -> None:
    """Wait for an operator's change of its secrets, or make one wait; later reads see what holds."""
    row = select(provider_connections.c.id).where(provider_connections.c.id == owner)
    # FOR NO KEY UPDATE, the same lock as the UPDATE by which `add_secret` resumes. SQLite has one writer.
    connection.execute(row.with_for_update(key_share=True))


def people_of(connection: Connection, owner: str) -> str:
    """Return the name under which aliases know its users, and prevent a change of it until this transaction ends."""
    lock_connection(connection, owner)
    return get_connection(connection, owner).people


def paused_reasons(connection: Connection, ids: Collection[str]) -> Mapping[str, str]:
    """Return why each of these is paused, by id; running ones are left out."""
    columns = provider_connections.c
    found = select(columns.id, columns.paused_reason).where(columns.id.in_(ids), columns.paused_reason.is_not(None))
    return {row.id: row.paused_reason for row in connection.execute(found)}


def confirming(connection: Connection, ids: Collection[str]) -> frozenset[str]:
    """Return those of them that require each connect to be confirmed by the product that made the link."""
    found = select(provider_connections).where(provider_connections.c.id.in_(ids))
    return frozenset(owner.id for owner in map(connection_of, connection.execute(found)) if owner.confirms)


def pause_connection(connection: Connection, owner: str, *, reason: str) -> None:
    """Fetch no tokens through it until an operator has acted."""
    paused = update(provider_connections).where(provider_connections.c.id == owner)
    connection.execute(paused.values(paused_reason=reason))


def _asked_as(owner: ProviderConnection) -> tuple[str, str, object]:
    """Return the endpoint and client that its tokens are requested with."""
    return owner.token_url, owner.client_id, owner.config


def was_changed(connection: Connection, owner: ProviderConnection, *, asked: int) -> bool:
    """True if its token requests now differ from *owner*'s, or an operator has resumed it since *asked*.

    *asked* is a ledger number from before the request. If True, the provider's refusal says nothing about the present
    connection. Holds the connection's lock until the transaction ends.
    """
    lock_connection(connection, owner.id)
    row = _BY_ID.run(connection, {"owner": owner.id}).one()
    if _asked_as(connection_of(row)) != _asked_as(owner):
        return True
    return row.resumed is not None and row.resumed >= asked


def resume_connection(connection: Connection, owner: str) -> None:
    """Resume a connection after an operator has acted: none of its secrets counts as refused any longer."""
    resumed = update(provider_connections).where(provider_connections.c.id == owner)
    connection.execute(resumed.values(paused_reason=None, resumed=next_number(connection)))
    forgiven = update(connection_secrets).where(connection_secrets.c.connection_id == owner)
    connection.execute(forgiven.values(refused_at=None))


def connection_of(row: Row[tuple[object, ...]] | Part) -> ProviderConnection:
    """Build the provider connection from a row of `provider_connections`."""
    return ProviderConnection(
        id=row.id,
        tenant=row.tenant_id,
        provider=row.provider,
        client_id=row.client_id,
        scopes=tuple(row.scopes),
        api_url=row.api_url,
        authorize_url=row.authorize_url,
        token_url=row.token_url,
        config=dict(row.config),
    )


def _correctable(owner: ProviderConnection) -> dict[str, Any]:
    """Return the columns that may change."""
    return {
        "client_id": owner.client_id,
        "scopes": list(owner.scopes),
        "api_url": owner.api_url,
        "authorize_url": owner.authorize_url,
        "token_url": owner.token_url,
        "config": dict(owner.config),
    }
