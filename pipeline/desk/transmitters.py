"""What a person does about transmitters of security events: each change with its audit row."""

from __future__ import annotations

from sqlalchemy import Connection

from identity.audit import Act
from identity.errors import BadInput
from identity.people import known_as
from identity.transmitters import Transmitter, add_transmitter, remove_transmitter, was_removed
from pipeline.desk.changes import record_change
from pipeline.ledger import queries


def add(connection: Connection, new: Transmitter, act: Act) -> None:
    """Believe its events from now on. Raises BadInput if its id is taken or names other people, or it means nobody."""
    if new.tenant is not None:
        queries.living_tenant(connection, new.tenant)
    if new.connection is not None:
        queries.provider_connection(connection, new.connection)
    elif (why := known_as(connection, new.id)) is not None:
        raise BadInput(f"{why}, and its id is the name of its own: choose another id")
    if not add_transmitter(connection, new, now=act.now):
        if was_removed(connection, new.id):
            raise BadInput(f"there was a transmitter {new.id}, whose events are kept: choose another id")
        raise BadInput(f"there is a transmitter {new.id} already: choose another id")
    detail = {
        "transmitter": new.id,
        "issuer": new.issuer,
        "audiences": sorted(new.audiences),
        "subject_issuer": new.names_subjects_of,
        "plain_jwt": new.plain_jwt,
        "jwks_url": new.jwks_url,
        "connection": new.connection,
    }
    record_change(connection, "transmitter.added", new.tenant, detail, act)


def remove(connection: Connection, id: str, act: Act) -> None:
    """Answer its events as those of one that nobody knows. Raises BadInput if there is none, or it was removed.

    What it signalled stays. So do the aliases of its people, and its id for them: nobody else's are taken for those.
    """
    gone = remove_transmitter(connection, id, now=act.now)
    detail = {"transmitter": id, "issuer": gone.issuer, "jwks_url": gone.jwks_url, "connection": gone.connection}
    record_change(connection, "transmitter.removed", gone.tenant, detail, act)
