"""The names under which aliases know people, and whose each is: a server's users, a transmitter's, the console's.

A user of one server who were found under the name of another's would act, and approve, as somebody else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, select

from identity.connections import connection_of
from identity.model import ProviderConnection
from identity.providers import PROFILES
from identity.tables import provider_connections, transmitters

SIGNED_IN_HERE = "console"  # those who sign in at the console


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


def _transmitters(connection: Connection) -> frozenset[str]:
    """Those whose people are known by aliases under their ids."""
    own = select(transmitters.c.id).where(transmitters.c.connection_id.is_(None))
    return frozenset(connection.execute(own).scalars())
