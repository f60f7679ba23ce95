"""Operator actions on transmitters of security events, each with its audit row."""

from __future__ import annotations

from sqlalchemy import Connection

from identity.audit import Act
from identity.errors import BadInput
from identity.people import known_as
from identity.transmitters import (
    Transmitter,
    add_transmitter,
    change_transmitter,
    note_running,
    remove_transmitter,
    was_removed,
)
from pipeline.desk.changes import record_change
from pipeline.views import operator_queries


def add(connection: Connection, new: Transmitter, act: Act) -> None:
    """Add a transmitter to trust.

    Raises BadInput if its id is taken, names other people, or its tenant does not exist.
    """
    if new.tenant is not None:
        operator_queries.living_tenant(connection, new.tenant)
    if new.connection is not None:
        operator_queries.provider_connection(connection, new.connection)
    elif (why := known_as(connection, new.id)) is not None:
        raise BadInput(f"{why}, and its id is the name of its own: choose another id")
    if not add_transmitter(connection, new, now=act.now):
        if was_removed(connection, new.id):
            raise BadInput(f"there was a transmitter {new.id}, whose events are kept: choose another id")
        raise BadInput(f"there is a transmitter {new.id} already: choose another id")
    detail = {
        "transmitter": new.id,
        "issuer": new.issuer,
        **_expected(new),
        "jwks_url": new.jwks_url,
        "connection": new.connection,
    }
    record_change(connection, "transmitter.added", new.tenant, detail, act)


def change(
    connection: Connection,
    id: str,
    act: Act,
    *,
    audiences: tuple[str, ...] | None,
    subject_issuer: str | None,
    plain_jwt: bool | None,
) -> Transmitter:
    """Change what its tokens must state from now on; None leaves a value alone. Raises BadInput if there is none."""
    before, after = change_transmitter(
        connection, id, audiences=audiences, subject_issuer=subject_issuer, plain_jwt=plain_jwt
    )
    if after != before:
        detail = {"transmitter": id, "before": _expected(before), "after": _expected(after)}
        record_change(connection, "transmitter.changed", after.tenant, detail, act)
    return after


def says_running(connection: Connection, id: str, act: Act) -> None:
    """Mark its stream as enabled, until it says otherwise. Raises BadInput if there is none."""
    found = note_running(connection, id, now=act.now)
    record_change(connection, "transmitter.running", found.tenant, {"transmitter": id}, act)


def _expected(of: Transmitter) -> dict[str, object]:
    return {
        "audiences": sorted(of.audiences),
        "subject_issuer": of.names_subjects_of,
        "plain_jwt": of.plain_jwt,
    }


def remove(connection: Connection, id: str, act: Act) -> None:
    """Stop accepting its events, like those of an unknown sender. Raises BadInput if there is none, or it was removed.

    What it signalled stays in effect. The aliases of its people and its id stay reserved, so nobody else is taken for
    them.
    """
    gone = remove_transmitter(connection, id, now=act.now)
    detail = {"transmitter": id, "issuer": gone.issuer, "jwks_url": gone.jwks_url, "connection": gone.connection}
    record_change(connection, "transmitter.removed", gone.tenant, detail, act)
