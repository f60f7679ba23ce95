"""Transmitters of Security Event Tokens: the permitted senders, and how their subjects are found.

A transmitter of a provider connection (Google) names the people of its accounts. A tenant's identity provider names
people by ids of its own, which are aliases under the transmitter's id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, Row, func, select, update

from identity.errors import BadInput
from identity.principals import checked_id
from identity.sql.rows import insert_new
from identity.tables import transmitters

ENABLED = "enabled"
STREAM_STATUSES = (ENABLED, "paused", "disabled")  # SSF 1.0 §8.1.2
_LIVE = select(transmitters).where(transmitters.c.removed_at.is_(None))


@dataclass(frozen=True, kw_only=True)
class Transmitter:
    """One registered transmitter."""

    id: str
    issuer: str  # its `iss`, to the letter
    audience: str  # its `aud` must be this or include it
    jwks_url: str
    tenant: str | None
    connection: str | None
    other_audiences: tuple[str, ...] = ()  # equally valid: a Google project's clients share one stream
    # The `iss` of its subjects, if it differs from its own, as for a service that reports on an IdP's people.
    subject_issuer: str | None = None
    plain_jwt: bool = False  # its tokens need no security event typ (RFC 8417 §2.3 only recommends it)

    @property
    def audiences(self) -> frozenset[str]:
        """All audiences that mean us."""
        return frozenset({self.audience, *self.other_audiences})

    @property
    def names_subjects_of(self) -> str:
        """The only issuer whose `sub` is accepted for its subjects: with two, one id could mean two people."""
        return self.subject_issuer or self.issuer


@dataclass(frozen=True, kw_only=True)
class SilentStream:
    """A stream whose transmitter no longer sends events."""

    transmitter: str
    status: str
    told_at: datetime


def add_transmitter(connection: Connection, new: Transmitter, *, now: datetime) -> bool:
    """Register a transmitter; False if its id is taken. Raises BadInput for one without a tenant or connection."""
    if new.tenant is None and new.connection is None:
        raise BadInput("a transmitter is of a tenant or of a provider connection: otherwise it could mean nobody")
    row = {
        "id": checked_id(new.id),
        "issuer": new.issuer,
        "audience": new.audience,
        "jwks_url": new.jwks_url,
        "tenant_id": new.tenant,
        "connection_id": new.connection,
        "other_audiences": list(new.other_audiences) or None,
        "subject_issuer": new.subject_issuer,
        "plain_jwt": new.plain_jwt,
        "created_at": now,
    }
    return insert_new(connection, transmitters, row)


def find_transmitter(connection: Connection, transmitter: str) -> Transmitter | None:
    """Return the transmitter of that id, unless it was removed."""
    row = connection.execute(_LIVE.where(transmitters.c.id == transmitter)).one_or_none()
    return None if row is None else _transmitter(row)


def hold_transmitter(connection: Connection, transmitter: str) -> bool:
    """Prevent its removal until the transaction ends; False if it was already removed.

    The lock does not block `note_stream`: two holders may each note a status.
    """
    held = _LIVE.where(transmitters.c.id == transmitter).with_for_update(read=True, key_share=True)
    return connection.execute(held).first() is not None


def remove_transmitter(connection: Connection, transmitter: str, *, now: datetime) -> Transmitter:
    """Mark it as removed and return it. Raises BadInput."""
    is_it = transmitters.c.id == transmitter
    row = connection.execute(select(transmitters).where(is_it).with_for_update()).one_or_none()
    if row is None:
        raise BadInput(f"there is no transmitter {transmitter}: `aswhom transmitters list` shows them")
    if row.removed_at is not None:
        raise BadInput(f"transmitter {transmitter} was removed already")
    connection.execute(update(transmitters).where(is_it).values(removed_at=now))
    return _transmitter(row)


def change_transmitter(
    connection: Connection,
    transmitter: str,
    *,
    audiences: tuple[str, ...] | None,
    subject_issuer: str | None,
    plain_jwt: bool | None,
) -> tuple[Transmitter, Transmitter]:
    """Change the form of its tokens. None leaves a value as it is; an empty *subject_issuer* means its own again.

    Returns the transmitter before and after. Its id, which its events and aliases refer to, stays. Raises BadInput.
    """
    row = connection.execute(_LIVE.where(transmitters.c.id == transmitter).with_for_update()).one_or_none()
    if row is None:
        raise BadInput(f"there is no transmitter {transmitter}: `aswhom transmitters list` shows them")
    before = _transmitter(row)
    after = replace(
        before,
        audience=before.audience if audiences is None else audiences[0],
        other_audiences=before.other_audiences if audiences is None else audiences[1:],
        subject_issuer=before.subject_issuer if subject_issuer is None else subject_issuer or None,
        plain_jwt=before.plain_jwt if plain_jwt is None else plain_jwt,
    )
    values = {
        "audience": after.audience,
        "other_audiences": list(after.other_audiences) or None,
        "subject_issuer": after.subject_issuer,
        "plain_jwt": after.plain_jwt,
    }
    connection.execute(update(transmitters).where(transmitters.c.id == transmitter).values(values))
    return before, after


def note_stream(connection: Connection, transmitter: str, status: str, *, told_at: datetime) -> None:
    """Store the stream status that a transmitter reported, unless it reported something newer before.

    The time is stored even if the status is unchanged, so that a late report can be recognised as older.
    """
    columns = transmitters.c
    status_is_new = func.coalesce(columns.stream_status, "") != status
    differs = columns.stream_told_at.is_(None) | (columns.stream_told_at < told_at)
    differs |= (columns.stream_told_at == told_at) & status_is_new
    said = update(transmitters).where(columns.id == transmitter, differs)
    connection.execute(said.values(stream_status=status, stream_told_at=told_at))


def note_running(connection: Connection, transmitter: str, *, now: datetime) -> Transmitter:
    """Record that somebody has seen its stream enabled, whatever it reported before.

    Raises BadInput if there is none.
    """
    row = connection.execute(_LIVE.where(transmitters.c.id == transmitter).with_for_update()).one_or_none()
    if row is None:
        raise BadInput(f"there is no transmitter {transmitter}: `aswhom transmitters list` shows them")
    told_at = max(now, row.stream_told_at or now)  # its clock may be ahead of ours
    said = update(transmitters).where(transmitters.c.id == transmitter)
    connection.execute(said.values(stream_status=ENABLED, stream_told_at=told_at))
    return _transmitter(row)


def silent_streams(connection: Connection) -> list[SilentStream]:
    """Return the streams that are not enabled, by their transmitters' last report."""
    silent = _LIVE.where(transmitters.c.stream_status != ENABLED).order_by(transmitters.c.id)
    return [
        SilentStream(transmitter=row.id, status=row.stream_status, told_at=row.stream_told_at)
        for row in connection.execute(silent)
    ]


def was_removed(connection: Connection, transmitter: str) -> bool:
    """True if there was a transmitter of that id, and it was removed."""
    removed = select(transmitters.c.id).where(transmitters.c.id == transmitter, transmitters.c.removed_at.is_not(None))
    return connection.execute(removed).first() is not None


def is_of_connection(connection: Connection, transmitter: str) -> bool:
    """True if its subjects are a provider connection's accounts, or were until it was removed."""
    found = select(transmitters.c.connection_id).where(transmitters.c.id == transmitter)
    return connection.execute(found).scalar_one_or_none() is not None


def leave_connection(connection: Connection, through: str) -> None:
    """Detach removed transmitters from a connection that is being removed as well."""
    gone = (transmitters.c.connection_id == through) & transmitters.c.removed_at.is_not(None)
    connection.execute(update(transmitters).where(gone).values(connection_id=None))


def _transmitter(row: Row[tuple[object, ...]]) -> Transmitter:
    return Transmitter(
        id=row.id,
        issuer=row.issuer,
        audience=row.audience,
        jwks_url=row.jwks_url,
        tenant=row.tenant_id,
        connection=row.connection_id,
        other_audiences=tuple(row.other_audiences or ()),
        subject_issuer=row.subject_issuer,
        plain_jwt=row.plain_jwt,
    )
