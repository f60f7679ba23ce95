"""Connect sessions: one attempt of a person to consent, for minutes and once.

Its ledger number, taken when it begins, becomes the grant's `consented`: a revocation after that refuses the callback.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection, Row, insert, or_, select, update

from identity.model import AccountKey
from identity.tables import connect_sessions
from identity.vault import Binding

_OPEN = connect_sessions.c.finished_at.is_(None)


@dataclass(frozen=True, kw_only=True)
class ConnectSession:
    """One session as it is stored: the state and the browser's cookie as hashes, the verifier sealed."""

    id: str  # also the one-time link
    key: AccountKey
    state_hash: str
    started: int
    scopes: tuple[str, ...]
    verifier_sealed: bytes = field(repr=False)
    browser_hash: str | None
    expires_at: datetime
    finished_at: datetime | None
    created_at: datetime


def digest(text: str) -> str:
    """How states and browser cookies are stored; both are random and long."""
    return sha256(text.encode()).hexdigest()


def verifier_binding(tenant: str, session: str, provider: str) -> Binding:
    return Binding(tenant=tenant, record=session, provider=provider, field="connect_session")


def add_session(connection: Connection, session: ConnectSession) -> None:
    row = {
        "id": session.id,
        "state_hash": session.state_hash,
        "tenant_id": session.key.tenant,
        "connection_id": session.key.connection,
        "principal_id": session.key.principal,
        "started": session.started,
        "scopes": list(session.scopes),
        "verifier_sealed": session.verifier_sealed,
        "expires_at": session.expires_at,
        "created_at": session.created_at,
    }
    connection.execute(insert(connect_sessions), row)


def get_session(connection: Connection, session: str) -> ConnectSession | None:
    row = connection.execute(select(connect_sessions).where(connect_sessions.c.id == session)).one_or_none()
    return None if row is None else _session(row)


def find_session(connection: Connection, state_hash: str) -> ConnectSession | None:
    found = select(connect_sessions).where(connect_sessions.c.state_hash == state_hash)
    row = connection.execute(found).one_or_none()
    return None if row is None else _session(row)


def bind_browser(connection: Connection, session: str, browser_hash: str, *, now: datetime) -> bool:
    """Tie an open session to the first browser that opens its link; False for another one, or too late."""
    columns = connect_sessions.c
    bound = update(connect_sessions).where(
        columns.id == session,
        _OPEN,
        columns.expires_at > now,
        or_(columns.browser_hash.is_(None), columns.browser_hash == browser_hash),
    )
    return connection.execute(bound.values(browser_hash=browser_hash)).rowcount == 1


def use_up(connection: Connection, session: str, *, now: datetime) -> bool:
    """Let this callback be the only one; False if there was one before, or it is too late."""
    columns = connect_sessions.c
    used = update(connect_sessions).where(columns.id == session, _OPEN, columns.expires_at > now)
    return connection.execute(used.values(finished_at=now, outcome="used")).rowcount == 1


def note_outcome(connection: Connection, session: str, outcome: str) -> None:
    """How it ended, for the console."""
    noted = update(connect_sessions).where(connect_sessions.c.id == session)
    connection.execute(noted.values(outcome=outcome[:64]))


def is_connecting(connection: Connection, key: AccountKey, *, now: datetime) -> bool:
    """Whether somebody holds a link for this account that still works."""
    columns = connect_sessions.c
    open_one = select(columns.id).where(
        columns.tenant_id == key.tenant,
        columns.connection_id == key.connection,
        columns.principal_id == key.principal,
        # One that is used up may be at the provider's token endpoint this moment, and is not connected yet.
        or_(_OPEN, columns.outcome == "used"),
        columns.expires_at > now,
    )
    return connection.execute(open_one.limit(1)).first() is not None


def _session(row: Row[tuple[object, ...]]) -> ConnectSession:
    return ConnectSession(
        id=row.id,
        key=AccountKey(tenant=row.tenant_id, connection=row.connection_id, principal=row.principal_id),
        state_hash=row.state_hash,
        started=row.started,
        scopes=tuple(row.scopes),
        verifier_sealed=row.verifier_sealed,
        browser_hash=row.browser_hash,
        expires_at=row.expires_at,
        finished_at=row.finished_at,
        created_at=row.created_at,
    )
