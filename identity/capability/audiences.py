"""Audiences: services that accept capabilities. Each authenticates to the authority by its own secret."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, or_, select, update

from identity import audit
from identity.audit import Act, AsWhom
from identity.capability.model import Algorithm, Audience
from identity.capability.tables import audiences as table
from identity.errors import BadInput
from identity.principals import checked_id
from identity.secret import Secret
from identity.sql.prepared import Prepared
from identity.sql.rows import insert_new

PREFIX = "awr_"  # lets secret scanners recognise it
OVERLAP = timedelta(hours=24)  # how long a former secret is still accepted

_LIVE = select(table).where(table.c.removed_at.is_(None))
_OF_CONNECTION = Prepared(_LIVE.where(table.c.connection_id == bindparam("through")))
_OF_ID = Prepared(_LIVE.where(table.c.id == bindparam("audience")))
_LOCKED = Prepared(_OF_ID.statement.with_for_update())


def new_secret(token: str) -> Secret:
    """Return a secret from *token*: 256 random bits in URL-safe base64, so a plain SHA-256 suffices to store it."""
    return Secret(PREFIX + token)


def add(connection: Connection, new: Audience, secret: Secret, act: Act) -> None:
    """Register an audience. Raises BadInput."""
    for other in new.passes_to:
        found = find(connection, other)
        if found is None:
            raise BadInput(f"there is no audience {other} to pass to: `aswhom capability audiences list` shows them")
        if found.tenant not in (None, new.tenant):
            raise BadInput(f"audience {other} is another tenant's")
    taken = table.c.uri == new.uri
    if new.connection is not None:
        taken = or_(taken, table.c.connection_id == new.connection)
    if connection.execute(_LIVE.where(taken, table.c.id != new.id)).first() is not None:
        raise BadInput("another audience has that address or that provider connection already")
    row = {
        "id": checked_id(new.id),
        "uri": new.uri,
        "tenant_id": new.tenant,
        "connection_id": new.connection,
        "algorithm": new.algorithm,
        "passes_to": list(new.passes_to),
        "secret_sha256": secret.fingerprint(),
        "created_at": act.now,
    }
    if not insert_new(connection, table, row):
        raise BadInput(f"there is or was an audience {new.id}, or another took that address just now")
    _record(connection, new.id, new.tenant, "added", act)


def renew(connection: Connection, id: str, secret: Secret, act: Act) -> datetime:
    """Give an audience a new secret; return until when the former is accepted. Raises BadInput.

    Idempotent: a repeat with the same secret changes nothing.
    """
    known = _known(connection, id)
    if known.secret_sha256 == secret.fingerprint():
        done: datetime = known.former_until
        return done
    until = act.now + OVERLAP
    values = {"secret_sha256": secret.fingerprint(), "former_sha256": known.secret_sha256, "former_until": until}
    connection.execute(update(table).where(table.c.id == id).values(values))
    _record(connection, id, known.tenant_id, "renewed", act)
    return until


def remove(connection: Connection, id: str, act: Act) -> None:
    """Stop issuing for an audience, and stop answering it. Raises BadInput."""
    known = _known(connection, id)
    # Frees its connection and its address for another audience.
    gone = {"removed_at": act.now, "connection_id": None}
    connection.execute(update(table).where(table.c.id == id).values(gone))
    _record(connection, id, known.tenant_id, "removed", act)


def find(connection: Connection, id: str) -> Audience | None:
    """Return the audience with that id, or None."""
    row = _OF_ID.run(connection, {"audience": id}).one_or_none()
    return None if row is None else _audience(row)


def of_connection(connection: Connection, through: str) -> Audience | None:
    """Return the audience behind a provider connection, or None."""
    row = _OF_CONNECTION.run(connection, {"through": through}).one_or_none()
    return None if row is None else _audience(row)


def of_uri(connection: Connection, uri: str) -> Audience | None:
    """Return the audience whose tokens have *uri* as `aud`, or None."""
    row = connection.execute(_LIVE.where(table.c.uri == uri)).one_or_none()
    return None if row is None else _audience(row)


def authenticate(connection: Connection, id: str, secret: Secret, *, now: datetime) -> Audience | None:
    """Return the audience if *secret* is its current one or, during the overlap, the former."""
    row = _OF_ID.run(connection, {"audience": id}).one_or_none()
    if row is None:
        return None
    accepted = [row.secret_sha256]
    if row.former_until is not None and now < row.former_until:
        accepted.append(row.former_sha256)
    shown = secret.fingerprint()
    return _audience(row) if any(hmac.compare_digest(shown, one) for one in accepted) else None


def _known(connection: Connection, id: str) -> Row[Any]:
    """Return the audience's row, locked for a change: concurrent changes wait."""
    row: Row[Any] | None = _LOCKED.run(connection, {"audience": id}).one_or_none()
    if row is None:
        raise BadInput(f"there is no audience {id}: `aswhom capability audiences list` shows them")
    return row


def _record(connection: Connection, id: str, tenant: str | None, what: str, act: Act) -> None:
    audit.record_act(connection, f"audience.{what}", AsWhom(tenant=tenant), act, outcome=what, detail={"audience": id})


def _audience(row: Row[Any]) -> Audience:
    return Audience(
        id=row.id,
        uri=row.uri,
        tenant=row.tenant_id,
        connection=row.connection_id,
        algorithm=Algorithm(row.algorithm),
        passes_to=tuple(row.passes_to),
    )
