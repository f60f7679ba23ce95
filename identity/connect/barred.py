"""Missing configuration that prevents any connect through a provider connection."""

from __future__ import annotations

from sqlalchemy import Connection

from identity.connections.secrets import PRIVATE_KEY, client_secret_name, live_secrets
from identity.model import ProviderConnection


def barred(connection: Connection, owner: ProviderConnection) -> str | None:
    """Return what the connection lacks for redirect and code exchange, and how to add it; None if nothing."""
    id, name = owner.id, client_secret_name(owner)
    if not owner.authorize_url:
        return f"{id} has no authorization endpoint: its accounts are added by `aswhom accounts add-…`"
    if not owner.client_id:
        return f"{id} has no client id: `aswhom connections set {id} --client-id ID`"
    if not live_secrets(connection, id, name):
        called = "private key" if name == PRIVATE_KEY else "client secret"
        return f"{id} has no {called}: `aswhom connections rotate-secret {id} --name {name} --file FILE`"
    return None
