"""Registering a service that takes capabilities: what steps reach it through, what tokens call it, a key to sign."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from identity.capability import audiences, keys
from identity.capability.keys import NewKey
from identity.capability.model import Audience
from identity.connections import add_connection
from identity.errors import BadInput
from identity.model import ProviderConnection
from identity.secret import Secret


def register(
    connection: Connection,
    new: Audience,
    secret: Secret,
    pair: NewKey,
    *,
    provider: str | None,
    api_url: str,
    by: str,
    now: datetime,
) -> None:
    """Add an audience. With a *provider*, actions of that name reach it at *api_url* from now on.

    *pair* signs for it if its algorithm has no key yet. Raises BadInput.
    """
    if provider is not None:
        through = ProviderConnection(
            id=new.connection or new.id,
            tenant=new.tenant,
            provider=provider,
            client_id="",
            scopes=(),
            api_url=api_url,
            authorize_url="",
            token_url="",
        )
        if not add_connection(connection, through, now=now):
            raise BadInput(f"there is a provider connection {through.id} already: choose another id")
    audiences.add(connection, new, secret, by=by, now=now)
    keys.ensure(connection, pair, now=now)
