"""Who is signed in at the console: sessions that live on the server, and links that sign in once.

A token is 256 random bits, so its plain SHA-256 is enough to recognise it and of no use to whoever reads the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, delete, insert, select

from identity import audit
from identity.audit import Act, AsWhom
from identity.console.roles import Held, Role
from identity.console.tables import console_links, console_sessions
from identity.secret import Secret

LINK_LIFETIME = timedelta(minutes=10)


class Via(StrEnum):
    """How somebody signed in."""

    OPENID = "openid"
    LINK = "link"


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who is signed in."""

    subject: str
    name: str
    via: Via
    held: tuple[Held, ...]

    @property
    def by(self) -> str:
        """The person, as the audit and the jobs name them."""
        return f"console:{self.name}"[:120]

    @property
    def known_by(self) -> str | None:
        """The subject by which an alias may say whose user they are; None: who came by a link is nobody's."""
        return self.subject if self.via is Via.OPENID else None


def begin(
    connection: Connection, token: Secret, person: Person, *, audit_id: str, now: datetime, lifetime: timedelta
) -> None:
    """Sign *person* in for *lifetime*; sessions that are over are forgotten."""
    connection.execute(delete(console_sessions).where(console_sessions.c.expires_at <= now))
    row = {
        "token_sha256": token.fingerprint(),
        "subject": person.subject[:255],
        "name": person.name,
        "roles": [[one.role, one.tenant] for one in person.held],
        "via": person.via,
        "created_at": now,
        "expires_at": now + lifetime,
    }
    connection.execute(insert(console_sessions), row)
    _record(connection, "console.signed_in", person, audit_id=audit_id, now=now)


def find(connection: Connection, token: Secret, *, now: datetime) -> Person | None:
    """Who holds *token*; None: nobody, or no longer."""
    columns = console_sessions.c
    held = select(console_sessions).where(columns.token_sha256 == token.fingerprint(), columns.expires_at > now)
    row = connection.execute(held).one_or_none()
    if row is None:
        return None
    roles = tuple(Held(role=Role(role), tenant=tenant) for role, tenant in row.roles)
    return Person(subject=row.subject, name=row.name, via=Via(row.via), held=roles)


def end(connection: Connection, token: Secret, person: Person, *, audit_id: str, now: datetime) -> None:
    """Sign out, on the server too."""
    gone = delete(console_sessions).where(console_sessions.c.token_sha256 == token.fingerprint())
    if connection.execute(gone).rowcount:
        _record(connection, "console.signed_out", person, audit_id=audit_id, now=now)


def end_all(connection: Connection, act: Act) -> int:
    """Sign everybody out, and end every link; returns how many sessions there were."""
    connection.execute(delete(console_links))
    ended = connection.execute(delete(console_sessions)).rowcount
    detail = {"sessions": ended}
    audit.record_act(
        connection, "console.all_signed_out", AsWhom(tenant=None), act, outcome="signed_out", detail=detail
    )
    return ended


def make_link(connection: Connection, token: Secret, act: Act) -> datetime:
    """Let *token* sign an owner in, once; returns until when. Links that are over are forgotten."""
    connection.execute(delete(console_links).where(console_links.c.expires_at <= act.now))
    expires_at = act.now + LINK_LIFETIME
    row = {"token_sha256": token.fingerprint(), "made_by": act.by, "created_at": act.now, "expires_at": expires_at}
    connection.execute(insert(console_links), row)
    audit.record_act(connection, "console.link_made", AsWhom(tenant=None), act, outcome="made")
    return expires_at


def use_link(connection: Connection, token: Secret, *, now: datetime) -> Person | None:
    """Use up a sign-in link. Returns whom it signs in; None: it is unknown, was used, or has expired."""
    gone = delete(console_links).where(console_links.c.token_sha256 == token.fingerprint())
    row = connection.execute(gone.returning(console_links.c.made_by, console_links.c.expires_at)).one_or_none()
    if row is None or row.expires_at <= now:
        return None
    return Person(subject=row.made_by, name=row.made_by, via=Via.LINK, held=_owner())


def _owner() -> tuple[Held, ...]:
    return (Held(role=Role.OWNER, tenant=None),)


def _record(connection: Connection, kind: str, person: Person, *, audit_id: str, now: datetime) -> None:
    audit.record(
        connection,
        kind,
        AsWhom(tenant=None),
        id=audit_id,
        at=now,
        outcome=kind.partition(".")[2],
        reason=f"{person.name}, by {person.via}",
        detail={"subject": person.subject, "roles": _words(person.held)},
    )


def _words(held: Sequence[Held]) -> list[str]:
    return [f"{one.role}@{one.tenant}" if one.tenant else str(one.role) for one in held]
