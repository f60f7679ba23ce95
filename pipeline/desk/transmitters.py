"""What a person does about transmitters of security events: each change with its audit row."""

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
from pipeline.ledger import operator_queries


def add(connection: Connection, new: Transmitter, act: Act) -> None:
    """Believe its events from now on. Raises BadInput if its id is taken or names other people, or it means nobody."""
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
    """Expect its tokens to be otherwise from now on; what is None stays. Raises BadInput if there is none."""
    before, after = change_transmitter(
        connection, id, audiences=audiences, subject_issuer=subject_issuer, plain_jwt=plain_jwt
    )
    if after != before:
        detail = {"transmitter": id, "before": _expected(before), "after": _expected(after)}
        record_change(connection, "transmitter.changed", after.tenant, detail, act)
    return after


def says_running(connection: Connection, id: str, act: Act) -> None:
    """Know its stream as enabled, until it says otherwise. Raises BadInput if there is none."""
    found = note_running(connection, id, now=act.now)
    record_change(connection, "transmitter.running", found.tenant, {"transmitter": id}, act)


def _expected(of: Transmitter) -> dict[str, object]:
    return {
        "audiences": sorted(of.audiences),
        "subject_issuer": of.names_subjects_of,
        "plain_jwt": of.plain_jwt,
    }


def remove(connection: Connection, id: str, act: Act) -> None:
    """Answer its events as those of one that nobody knows. Raises BadInput if there is none, or it was removed.

    What it signalled stays. So do the aliases of its people, and its id for them: nobody else's are taken for those.
    """
    gone = remove_transmitter(connection, id, now=act.now)
    detail = {"transmitter": id, "issuer": gone.issuer, "jwks_url": gone.jwks_url, "connection": gone.connection}
    record_change(connection, "transmitter.removed", gone.tenant, detail, act)
