"""Setup of a service that takes capabilities: its address, its audience, and a signing key."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from identity.audit import Act
from identity.capability import audiences, keys
from identity.capability.keys import NewKey
from identity.capability.model import Audience
from identity.model import ProviderConnection
from identity.secret import Secret
from pipeline.desk import connections
from pipeline.views import operator_queries


def register(
    connection: Connection, new: Audience, secret: Secret, pair: NewKey, act: Act, *, provider: str | None, api_url: str
) -> None:
    """Add an audience. With a *provider*, actions of that name reach it at *api_url* from now on.

    *pair* becomes the signing key if its algorithm has none yet. Raises BadInput.
    """
    if new.tenant is not None:
        operator_queries.living_tenant(connection, new.tenant)
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
        connections.add(connection, through, [], act)
    audiences.add(connection, new, secret, replace(act, audit_id=f"{act.audit_id}.audience"))
    keys.ensure(connection, pair, now=act.now)
