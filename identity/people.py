"""The names under which aliases know people, and whose each is: a server's users, a transmitter's, the console's.

A user of one server who were found under the name of another's would act, and approve, as somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace

from sqlalchemy import Connection, exists, func, literal, select, update

from identity.connections.registry import connection_of, rewrite_connection
from identity.errors import BadInput
from identity.model import ProviderConnection
from identity.providers import PROFILES
from identity.tables import accounts, aliases, provider_connections, transmitters

SIGNED_IN_HERE = "console"  # those who sign in at the console
_SENDERS = ("hmac", "standard")  # of the operator's own, as workflows know who is named in their bodies
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")  # as long as aliases store it


def taken_for(connection: Connection, owner: ProviderConnection) -> str | None:
    """For whom *owner*'s users would be taken, in words; None: for nobody else."""
    others = [one for one in _connections(connection) if one.id != owner.id]
    return _taken_for(owner, others, _transmitters(connection))


def all_taken_for(connection: Connection) -> list[tuple[str, str]]:
    """The connections whose users are taken for others: the id of each later one, and for whom, in words."""
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
    """Who is known under *name* already, besides a transmitter's people, in words; None: nobody."""
    if (why := _reserved(name)) is not None:
        return why
    mine = (one.id for one in _connections(connection) if one.people == name)
    return next((f"{name} names the users of connection {one}" for one in mine), None)


def names_of(connection: Connection, tenant: str) -> frozenset[str]:
    """The names under which a tenant's people can be known."""
    visible = [one for one in _connections(connection) if one.tenant in (None, tenant)]
    connected = {name for one in visible for name in (one.people, one.config.get("sender")) if name}
    return _transmitters(connection, tenant) | connected | PROFILES.keys() | {SIGNED_IN_HERE, *_SENDERS}


def links_left(connection: Connection, owner: ProviderConnection) -> int:
    """How many links only *owner* has: another server's users could come by them, under its name."""
    others = [one for one in _connections(connection) if one.id != owner.id and one.people == owner.people]
    served = [one.tenant for one in others if _server(one) == _server(owner)]
    if None in served or (owner.tenant is not None and owner.tenant in served):
        return 0
    linked = select(func.count()).select_from(aliases).where(aliases.c.provider == owner.people)
    if owner.tenant is not None:
        linked = linked.where(aliases.c.tenant_id == owner.tenant)
    return connection.execute(linked).scalar_one()


def checked_name(name: str) -> str:
    """*name*, or BadInput."""
    if not _NAME.fullmatch(name):
        raise BadInput("people is the name under which aliases know its users: up to 32 letters, digits, '-', '_', '.'")
    return name


def name_people(connection: Connection, owner: ProviderConnection, name: str) -> int:
    """Know *owner*'s users under *name* from now on, those too whom its connects have linked; how many these are.

    Whom an admin linked under the old name stays there: of which server they are was not said. Raises BadInput for a
    name that means others.
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
    """Who numbers its users."""
    return owner.provider, owner.token_url or owner.id


def _meet(one: ProviderConnection, other: ProviderConnection) -> bool:
    """Whether a tenant may have people of both: aliases are of one tenant each."""
    return one.tenant is None or other.tenant is None or one.tenant == other.tenant


def _connections(connection: Connection) -> list[ProviderConnection]:
    columns = provider_connections.c
    rows = connection.execute(select(provider_connections).order_by(columns.created_at, columns.id))
    return [connection_of(row) for row in rows]


def _transmitters(connection: Connection, tenant: str | None = None) -> frozenset[str]:
    """Those whose people are known by aliases under their ids, removed ones too: the aliases stay. None: anybody's."""
    own = select(transmitters.c.id).where(transmitters.c.connection_id.is_(None), transmitters.c.tenant_id.is_not(None))
    if tenant is not None:
        own = own.where(transmitters.c.tenant_id == tenant)
    return frozenset(connection.execute(own).scalars())
