"""Who is signed in at the console: sessions that live on the server, and links that sign in once.

A token is 256 random bits, so its plain SHA-256 is enough to recognise it and of no use to whoever reads the ledger.
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
    issuer: str | None = None  # whose subject it is; None: a link's

    @property
    def by(self) -> str:
        """The person, as the audit and the jobs name them."""
        return f"console:{self.name}"[:120]

    @property
    def known_by(self) -> str | None:
        """The subject by which an alias may say whose user they are; None: who came by a link is nobody's."""
        return self.subject if self.via is Via.OPENID else None


@dataclass(frozen=True, kw_only=True)
class Session:
    """A browser in which somebody is signed in."""

    person: Person
    seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """What became of the sessions that a provider's word could have ended."""

    ended: int
    narrowed: int  # those that have roles beyond the tenant whose sessions its sender may end: they keep these alone
    younger: int  # than what it tells of
    of_others: int  # without a role of that tenant


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What one person had."""

    sessions: int
    links: int  # unused ones that they made


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
    """Sign *person* in for *lifetime*; sessions that are over are forgotten."""
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
    """The session of *token*; None: there is none, or no longer, or nobody used it for as long as *idle*."""
    columns = console_sessions.c
    held = select(console_sessions).where(columns.token_sha256 == token.fingerprint(), columns.expires_at > now)
    row = connection.execute(held).one_or_none()
    if row is None or (idle is not None and row.seen_at <= now - idle):
        return None
    roles = tuple(Held(role=Role(role), tenant=tenant) for role, tenant in row.roles)
    person = Person(subject=row.subject, name=row.name, via=Via(row.via), held=roles, issuer=row.issuer)
    return Session(person=person, seen_at=row.seen_at)


def live(connection: Connection, *, now: datetime, idle: timedelta | None) -> list[dict[str, Any]]:
    """Who is signed in, the newest sign-in first; their roles in words."""
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
    """Its person has asked for something. No page waits for a standby to have that."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("set local synchronous_commit to off"))
    seen = update(console_sessions).where(console_sessions.c.token_sha256 == token.fingerprint())
    connection.execute(seen.values(seen_at=now))


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


def end_of(connection: Connection, subject: str, act: Act) -> Ended:
    """Sign one person out wherever they are signed in, and end what would sign them in again. Raises BadInput for
    nobody.
    """
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
    """End the sessions of those whom the provider they signed in by has withdrawn.

    One that began after *before* is of a sign-in that the provider has allowed since. *within* is the one tenant whose
    sessions the sender may end: of whom has roles elsewhere as well they go on with these.
    """
    columns = console_sessions.c
    meant = (columns.issuer == issuer) & columns.subject.in_(subjects) & (columns.expires_at > now)
    # Locked, since another sender may narrow the same session now: if both read the same roles, the second would give
    # back what the first took.
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
