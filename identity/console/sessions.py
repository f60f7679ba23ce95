"""Console sessions, stored on the server, and links that sign in once.

A token is 256 random bits. A plain SHA-256 suffices to recognise it and is of no use to a reader of the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, text, update

from identity import audit
from identity.audit import Act, AsWhom
from identity.console.roles import Held, Role
from identity.console.tables import console_links, console_sessions
from identity.errors import BadInput
from identity.secret import Secret

LINK_LIFETIME = timedelta(minutes=10)


class Via(StrEnum):
    """The way somebody signed in."""

    OPENID = "openid"
    LINK = "link"


@dataclass(frozen=True, kw_only=True)
class Person:
    """A person who is signed in."""

    subject: str
    name: str
    via: Via
    held: tuple[Held, ...]
    issuer: str | None = None  # of the subject; None for a link

    @property
    def by(self) -> str:
        """The person's name in the audit and in jobs."""
        return f"console:{self.name}"[:120]

    @property
    def known_by(self) -> str | None:
        """The subject by which an alias may name their principal; None for people who came by a link."""
        return self.subject if self.via is Via.OPENID else None


@dataclass(frozen=True, kw_only=True)
class Session:
    """A browser session of a signed-in person."""

    person: Person
    seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """The effect of a provider's sign-out signal on sessions."""

    ended: int
    narrowed: int  # kept only their roles outside the sender's tenant
    younger: int  # begun after the signal's event: kept
    of_others: int  # without a role of the sender's tenant: kept


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The sessions and links ended for one person."""

    sessions: int
    links: int  # unused links that they had made


def begin(
    connection: Connection,
    token: Secret,
    person: Person,
    *,
    audit_id: str,
    now: datetime,
    lifetime: timedelta,
    came_from: str | None = None,
) -> None:
    """Sign *person* in for *lifetime*, and delete expired sessions."""
    connection.execute(delete(console_sessions).where(console_sessions.c.expires_at <= now))
    row = {
        "token_sha256": token.fingerprint(),
        "subject": person.subject[:255],
        "issuer": person.issuer,
        "name": person.name,
        "roles": [[one.role, one.tenant] for one in person.held],
        "via": person.via,
        "created_at": now,
        "seen_at": now,
        "expires_at": now + lifetime,
    }
    connection.execute(insert(console_sessions), row)
    _record(connection, "console.signed_in", person, audit_id=audit_id, now=now, came_from=came_from)


def find(connection: Connection, token: Secret, *, now: datetime, idle: timedelta | None = None) -> Session | None:
    """Return the session of *token*; None if it is unknown, has expired, or was unused for *idle*."""
    columns = console_sessions.c
    held = select(console_sessions).where(columns.token_sha256 == token.fingerprint(), columns.expires_at > now)
    row = connection.execute(held).one_or_none()
    if row is None or (idle is not None and row.seen_at <= now - idle):
        return None
    roles = tuple(Held(role=Role(role), tenant=tenant) for role, tenant in row.roles)
    person = Person(subject=row.subject, name=row.name, via=Via(row.via), held=roles, issuer=row.issuer)
    return Session(person=person, seen_at=row.seen_at)


def live(connection: Connection, *, now: datetime, idle: timedelta | None) -> list[dict[str, Any]]:
    """Return the live sessions, newest first, with roles in words."""
    columns = console_sessions.c
    newest = select(console_sessions).where(columns.expires_at > now).order_by(columns.created_at.desc())
    if idle is not None:
        newest = newest.where(columns.seen_at > now - idle)
    shown = ("subject", "name", "issuer", "created_at", "seen_at", "expires_at")
    return [
        {name: row[name] for name in shown}
        | {"roles": _words([Held(role=Role(role), tenant=tenant) for role, tenant in row["roles"]])}
        for row in connection.execute(newest).mappings()
    ]


def note_seen(connection: Connection, token: Secret, *, now: datetime) -> None:
    """Record activity of a session. Asynchronous commit: no page waits for a standby."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("set local synchronous_commit to off"))
    seen = update(console_sessions).where(console_sessions.c.token_sha256 == token.fingerprint())
    connection.execute(seen.values(seen_at=now))


def end(connection: Connection, token: Secret, person: Person, *, audit_id: str, now: datetime) -> None:
    """Sign out by deleting the session on the server."""
    gone = delete(console_sessions).where(console_sessions.c.token_sha256 == token.fingerprint())
    if connection.execute(gone).rowcount:
        _record(connection, "console.signed_out", person, audit_id=audit_id, now=now)


def end_all(connection: Connection, act: Act) -> int:
    """Sign everybody out and delete every link; return how many sessions there were."""
    connection.execute(delete(console_links))
    ended = connection.execute(delete(console_sessions)).rowcount
    detail = {"sessions": ended}
    audit.record_act(
        connection, "console.all_signed_out", AsWhom(tenant=None), act, outcome="signed_out", detail=detail
    )
    return ended


def end_of(connection: Connection, subject: str, act: Act) -> Ended:
    """Sign one person out everywhere and delete their links. Raises BadInput if there is nothing to end."""
    sessions = _end(connection, console_sessions.c.subject == subject)
    links = connection.execute(delete(console_links).where(console_links.c.made_by == subject)).rowcount
    if not sessions and not links:
        raise BadInput(f"nobody is signed in as {subject}: `aswhom console sessions` shows who is")
    detail = {"subject": subject, "sessions": sessions, "links": links}
    audit.record_act(connection, "console.session_ended", AsWhom(tenant=None), act, outcome="ended", detail=detail)
    return Ended(sessions=sessions, links=links)


def end_at_providers_word(
    connection: Connection,
    *,
    issuer: str,
    subjects: Collection[str],
    within: str | None,
    before: datetime | None,
    audit_id: str,
    by: str,
    reason: str,
    now: datetime,
) -> Withdrawn:
    """End the sessions of people whose sign-in the provider has withdrawn.

    Sessions begun after *before* are kept: the provider has allowed them since. With *within*, the sender may end only
    that tenant's access: sessions with roles elsewhere keep those roles.
    """
    columns = console_sessions.c
    meant = (columns.issuer == issuer) & columns.subject.in_(subjects) & (columns.expires_at > now)
    # Locked: another sender may be narrowing the same session. If both read the same roles, the second would restore
    # those that the first removed.
    sessions = select(columns.token_sha256, columns.roles, columns.created_at).where(meant)
    found = connection.execute(sessions.order_by(columns.token_sha256).with_for_update()).all()
    theirs = [one for one in found if within is None or any(tenant == within for _, tenant in one.roles)]
    due = [one for one in theirs if before is None or one.created_at <= before]
    elsewhere = {one.token_sha256: [held for held in one.roles if within not in (None, held[1])] for one in due}
    narrowed = 0
    for token, roles in elsewhere.items():
        if roles:
            left = update(console_sessions).where(columns.token_sha256 == token).values(roles=roles)
            narrowed += connection.execute(left).rowcount
    ended = _end(connection, columns.token_sha256.in_([token for token, roles in elsewhere.items() if not roles]))
    if ended or narrowed:
        audit.record(
            connection,
            "console.session_ended",
            AsWhom(tenant=None),
            id=audit_id,
            at=now,
            outcome="ended",
            reason=f"{reason}, by {by}",
            detail={"issuer": issuer, "subjects": sorted(subjects), "sessions": ended, "narrowed": narrowed},
        )
    return Withdrawn(ended=ended, narrowed=narrowed, younger=len(theirs) - len(due), of_others=len(found) - len(theirs))


def _end(connection: Connection, which: ColumnElement[bool]) -> int:
    return connection.execute(delete(console_sessions).where(which)).rowcount


def make_link(connection: Connection, token: Secret, act: Act) -> datetime:
    """Let *token* sign an owner in, once; return when it expires. Deletes expired links."""
    connection.execute(delete(console_links).where(console_links.c.expires_at <= act.now))
    expires_at = act.now + LINK_LIFETIME
    row = {"token_sha256": token.fingerprint(), "made_by": act.by, "created_at": act.now, "expires_at": expires_at}
    connection.execute(insert(console_links), row)
    audit.record_act(connection, "console.link_made", AsWhom(tenant=None), act, outcome="made")
    return expires_at


def use_link(connection: Connection, token: Secret, *, now: datetime) -> Person | None:
    """Use up a sign-in link; return the person, or None if it is unknown, used or expired."""
    gone = delete(console_links).where(console_links.c.token_sha256 == token.fingerprint())
    row = connection.execute(gone.returning(console_links.c.made_by, console_links.c.expires_at)).one_or_none()
    if row is None or row.expires_at <= now:
        return None
    return Person(subject=row.made_by, name=row.made_by, via=Via.LINK, held=_owner())


def _owner() -> tuple[Held, ...]:
    return (Held(role=Role.OWNER, tenant=None),)


def _record(
    connection: Connection, kind: str, person: Person, *, audit_id: str, now: datetime, came_from: str | None = None
) -> None:
    from_where = {} if came_from is None else {"from": came_from}
    audit.record(
        connection,
        kind,
        AsWhom(tenant=None),
        id=audit_id,
        at=now,
        outcome=kind.partition(".")[2],
        reason=f"{person.name}, by {person.via}",
        detail={"subject": person.subject, "roles": _words(person.held), **from_where},
    )


def _words(held: Sequence[Held]) -> list[str]:
    return [f"{one.role}@{one.tenant}" if one.tenant else str(one.role) for one in held]
