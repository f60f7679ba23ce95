"""The namespaces of aliases: a server's users, a transmitter's subjects, or the console's users.

If a user of one server were looked up under another server's name, they would act, and approve, as somebody else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from sqlalchemy import Connection, exists, func, literal, select, update

from identity.connections.registration import checked_name
from identity.connections.registry import connection_of, rewrite_connection
from identity.errors import BadInput
from identity.model import ProviderConnection
from identity.providers import PROFILES
from identity.tables import accounts, aliases, provider_connections, transmitters

SIGNED_IN_HERE = "console"  # people who sign in at the console
# the operator's own webhook senders; workflows know the people named in their bodies under these
_SENDERS = ("hmac", "standard")


def taken_for(connection: Connection, owner: ProviderConnection) -> str | None:
    """Describe whose users *owner*'s would be mistaken for; None if nobody's."""
    others = [one for one in _connections(connection) if one.id != owner.id]
    return _taken_for(owner, others, _transmitters(connection))


def all_taken_for(connection: Connection) -> list[tuple[str, str]]:
    """Return the connections whose users would be mistaken for others: each later one's id, and a description."""
    owners, sending = _connections(connection), _transmitters(connection)
    named: dict[str, list[ProviderConnection]] = {}
    found = []
    for owner in owners:
        before = named.setdefault(owner.people, [])
        if (why := _taken_for(owner, before, sending)) is not None:
            found.append((owner.id, why))
        before.append(owner)
    return found


def known_as(connection: Connection, name: str) -> str | None:
    """Describe who is already known under *name*, transmitters' subjects excepted; None if nobody."""
    if (why := _reserved(name)) is not None:
        return why
    mine = (one.id for one in _connections(connection) if one.people == name)
    return next((f"{name} names the users of connection {one}" for one in mine), None)


def names_of(connection: Connection, tenant: str) -> frozenset[str]:
    """Return the names under which a tenant's people can be known."""
    visible = [one for one in _connections(connection) if one.tenant in (None, tenant)]
    connected = {name for one in visible for name in (one.people, one.config.get("sender")) if name}
    return _transmitters(connection, tenant) | connected | PROFILES.keys() | {SIGNED_IN_HERE, *_SENDERS}


def links_left(connection: Connection, owner: ProviderConnection) -> int:
    """Return how many alias links would be orphaned if *owner* went; 0 if another connection keeps them in use.

    Another server's users could inherit links that are left.
    """
    others = [one for one in _connections(connection) if one.id != owner.id and one.people == owner.people]
    served = [one.tenant for one in others if _server(one) == _server(owner)]
    if None in served or (owner.tenant is not None and owner.tenant in served):
        return 0
    linked = select(func.count()).select_from(aliases).where(aliases.c.provider == owner.people)
    if owner.tenant is not None:
        linked = linked.where(aliases.c.tenant_id == owner.tenant)
    return connection.execute(linked).scalar_one()


def name_people(connection: Connection, owner: ProviderConnection, name: str) -> int:
    """Know *owner*'s users under *name* from now on. Return how many existing links were moved to it.

    Links made by its connects move. Links made by an admin under the old name stay: they do not say which server they
    mean. Raises BadInput for a name that means other people.
    """
    named = replace(owner, config={**owner.config, "people": checked_name(name)})
    if (why := taken_for(connection, named)) is not None:
        raise BadInput(f"{why}: choose another name")
    rewrite_connection(connection, named)
    linked = select(literal("connect:") + accounts.c.id).where(accounts.c.connection_id == owner.id)
    there = aliases.alias()
    taken = exists().where(
        there.c.tenant_id == aliases.c.tenant_id,
        there.c.provider == name,
        there.c.external_id == aliases.c.external_id,
    )
    moved = update(aliases).where(aliases.c.provider == owner.people, aliases.c.made_by.in_(linked), ~taken)
    return connection.execute(moved.values(provider=name)).rowcount


def _taken_for(owner: ProviderConnection, others: Iterable[ProviderConnection], sending: Collection[str]) -> str | None:
    name, profile = owner.people, PROFILES.get(owner.provider)
    if name != owner.provider and (why := _reserved(name)) is not None:
        return why
    if name == owner.provider and (profile is None or profile.whoami is None):
        return None  # no connect says who its users are
    if name in sending:
        return f"{name} names the people of transmitter {name}"
    for other in others:
        if other.people == name and _server(other) != _server(owner) and _meet(owner, other):
            one = f"user 1 of {owner.token_url or owner.id}"
            return f"{one} is taken for user 1 of connection {other.id}, which is at another server"
    return None


def _reserved(name: str) -> str | None:
    if name == SIGNED_IN_HERE:
        return f"{name} names those who sign in at the console"
    return f"{name} names the users of {PROFILES[name].title}" if name in PROFILES else None


def _server(owner: ProviderConnection) -> tuple[str, str]:
    """Return the server that numbers its users."""
    return owner.provider, owner.token_url or owner.id


def _meet(one: ProviderConnection, other: ProviderConnection) -> bool:
    """True if one tenant may have people of both: aliases belong to one tenant each."""
    return one.tenant is None or other.tenant is None or one.tenant == other.tenant


def _connections(connection: Connection) -> list[ProviderConnection]:
    columns = provider_connections.c
    rows = connection.execute(select(provider_connections).order_by(columns.created_at, columns.id))
    return [connection_of(row) for row in rows]


def _transmitters(connection: Connection, tenant: str | None = None) -> frozenset[str]:
    """Return the ids of transmitters whose subjects are known by aliases, of one tenant or (None) of all.

    Removed ones are included, because their aliases stay.
    """
    own = select(transmitters.c.id).where(transmitters.c.connection_id.is_(None), transmitters.c.tenant_id.is_not(None))
    if tenant is not None:
        own = own.where(transmitters.c.tenant_id == tenant)
    return frozenset(connection.execute(own).scalars())
