"""Transmitters of Security Event Tokens: who may send them, and whom their subjects are.

A transmitter of a provider connection (Google) names the people of its accounts. A tenant's identity provider names
people by ids of its own, which are aliases under the transmitter's id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, select

from identity.errors import BadInput
from identity.principals import checked_id
from identity.rows import insert_new
from identity.tables import transmitters


@dataclass(frozen=True, kw_only=True)
class Transmitter:
    """One registered transmitter."""

    id: str
    issuer: str  # its `iss`, to the letter
    audience: str  # what its `aud` must be or hold
    jwks_url: str
    tenant: str | None
    connection: str | None


def add_transmitter(connection: Connection, new: Transmitter, *, now: datetime) -> bool:
    """Register a transmitter; False if its id is taken. Raises BadInput for one that could mean nobody."""
    if new.tenant is None and new.connection is None:
        raise BadInput("a transmitter is of a tenant or of a provider connection: otherwise it could mean nobody")
    row = {
        "id": checked_id(new.id),
        "issuer": new.issuer,
        "audience": new.audience,
        "jwks_url": new.jwks_url,
        "tenant_id": new.tenant,
        "connection_id": new.connection,
        "created_at": now,
    }
    return insert_new(connection, transmitters, row)


def find_transmitter(connection: Connection, transmitter: str) -> Transmitter | None:
    """The transmitter of that id."""
    row = connection.execute(select(transmitters).where(transmitters.c.id == transmitter)).one_or_none()
    return None if row is None else _transmitter(row)


def _transmitter(row: Row[tuple[object, ...]]) -> Transmitter:
    return Transmitter(
        id=row.id,
        issuer=row.issuer,
        audience=row.audience,
        jwks_url=row.jwks_url,
        tenant=row.tenant_id,
        connection=row.connection_id,
    )
