"""Connect sessions: one attempt of a person to consent, valid once and for minutes.

A session's ledger number, taken when it begins, becomes the grant's `consented`: a later revocation refuses the
callback.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, not_, or_, select, true, update

from identity.connect_sessions.tables import connect_sessions
from identity.keys.vault import Binding, Vault
from identity.model import AccountKey
from identity.secret import Secret
from identity.sql.columns import Instant

_OPEN = connect_sessions.c.finished_at.is_(None)
CONNECTED, USED, AWAITING = "connected", "used", "awaiting"
FINISHED_WITHIN = timedelta(minutes=1)  # a callback without an outcome by then was cut off
CONFIRMED_WITHIN = timedelta(minutes=5)  # from the callback; the browser's next request goes to the product


@dataclass(frozen=True, kw_only=True)
class ConnectSession:
    """One session as stored: state and browser cookie as hashes, the verifier sealed."""

    id: str
    key: AccountKey
    state_hash: str
    started: int
    scopes: tuple[str, ...]
    verifier_sealed: bytes = field(repr=False)
    browser_hash: str | None
    expires_at: datetime
    finished_at: datetime | None
    created_at: datetime
    outcome: str | None = None
    result: Mapping[str, Any] | None = None
    return_to: str | None = None
    any_account: bool = False
    confirm: bool = False  # the product that made the link must confirm the person
    code_hash: str | None = None  # of the code that the browser carries to that product
    nonce_hash: str | None = None  # of the product's nonce in the session of the browser that asked for the link

    def is_of(self, browser: str) -> bool:
        """True if the session is bound to *browser*."""
        return bool(browser) and self.browser_hash == digest(browser)

    def is_code(self, code: str) -> bool:
        """True if *code* is the one that the browser carried to the product."""
        return self.code_hash is not None and compare_digest(self.code_hash, digest(code))

    def is_nonce(self, nonce: str) -> bool:
        """True if *nonce* is the one that the product gave when it asked for the link."""
        return self.nonce_hash is not None and compare_digest(self.nonce_hash, digest(nonce))


def digest(text: str) -> str:
    """Hash a state, cookie, code or nonce for storage and comparison; all are random and long."""
    return sha256(text.encode()).hexdigest()


def seal_verifier(vault: Vault, tenant: str, session: str, provider: str, *, state: str, verifier: str) -> bytes:
    """Seal a session's state and verifier for storage."""
    return vault.seal(Secret(json.dumps([state, verifier])), _binding(tenant, session, provider))


def open_verifier(vault: Vault, session: ConnectSession, provider: str) -> tuple[str, str]:
    """Return a session's state and verifier. Raises Misconfigured."""
    opened = vault.open(session.verifier_sealed, _binding(session.key.tenant, session.id, provider))
    state, verifier = json.loads(opened.reveal())
    return state, verifier


def _binding(tenant: str, session: str, provider: str) -> Binding:
    return Binding(tenant=tenant, record=session, provider=provider, field="connect_session")


def add_session(connection: Connection, session: ConnectSession) -> None:
    """Insert a new session."""
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
        "return_to": session.return_to,
        "any_account": session.any_account,
        "confirm": session.confirm,
        "nonce_hash": session.nonce_hash,
        "created_at": session.created_at,
    }
    connection.execute(insert(connect_sessions), row)


def get_session(connection: Connection, session: str) -> ConnectSession | None:
    """Return the session with that id, or None."""
    row = connection.execute(select(connect_sessions).where(connect_sessions.c.id == session)).one_or_none()
    return None if row is None else _session(row)


def find_session(connection: Connection, state_hash: str) -> ConnectSession | None:
    """Return the session with that state, or None."""
    found = select(connect_sessions).where(connect_sessions.c.state_hash == state_hash)
    row = connection.execute(found).one_or_none()
    return None if row is None else _session(row)


def bind_browser(
    connection: Connection, session: str, browser_hash: str, *, now: datetime, expires_at: datetime
) -> bool:
    """Bind an open session to the first browser that goes on from its page; False for another one, or too late.

    The first binding extends the session to *expires_at*: the link's own lifetime is for opening it.
    """
    columns = connect_sessions.c
    which = (columns.id == session) & _OPEN & (columns.expires_at > now)
    first = update(connect_sessions).where(which, columns.browser_hash.is_(None))
    if connection.execute(first.values(browser_hash=browser_hash, expires_at=expires_at)).rowcount == 1:
        return True
    found = select(columns.id).where(which, columns.browser_hash == browser_hash)
    return connection.execute(found).first() is not None


def use_up(connection: Connection, session: str, *, now: datetime) -> bool:
    """Claim the session for this callback; False if another callback was first, or it is too late."""
    columns = connect_sessions.c
    used = update(connect_sessions).where(columns.id == session, _OPEN, columns.expires_at > now)
    return connection.execute(used.values(finished_at=now, outcome=USED)).rowcount == 1


def note_outcome(connection: Connection, session: str, outcome: str, result: Mapping[str, Any]) -> bool:
    """Record the outcome for the result page; False if one was recorded before, which stays."""
    columns = connect_sessions.c
    unsaid = or_(columns.outcome.is_(None), columns.outcome.in_((USED, AWAITING)))
    noted = update(connect_sessions).where(columns.id == session, unsaid)
    return connection.execute(noted.values(outcome=outcome, result=dict(result))).rowcount == 1


def await_confirmation(
    connection: Connection, session: str, code_hash: str, result: Mapping[str, Any], *, until: datetime
) -> bool:
    """Mark a session as awaiting confirmation after its callback; False if that or an outcome is recorded."""
    columns = connect_sessions.c
    used = update(connect_sessions).where(columns.id == session, columns.outcome == USED)
    values = {"outcome": AWAITING, "code_hash": code_hash, "result": dict(result), "expires_at": until}
    return connection.execute(used.values(values)).rowcount == 1


def is_connecting(
    connection: Connection,
    key: AccountKey,
    *,
    now: datetime,
    after: int = 0,
    before: int | None = None,
    besides: int | None = None,
) -> bool:
    """True if a link for this account still works and was made between these ledger numbers, exclusive.

    A link also counts during its callback, for `FINISHED_WITHIN`, and while it waits for its confirmation. *besides* is
    the number of a session to ignore: it has ended, whatever was recorded.
    """
    columns = connect_sessions.c
    open_one = select(columns.id).where(
        columns.tenant_id == key.tenant,
        columns.connection_id == key.connection,
        columns.principal_id == key.principal,
        _works(now),
        columns.started > after,
        true() if before is None else columns.started < before,
        true() if besides is None else columns.started != besides,
    )
    return connection.execute(open_one.limit(1)).first() is not None


def links_end(
    connection: Connection, key: AccountKey, *, now: datetime, made_by: datetime, after: int, besides: int
) -> datetime | None:
    """Return when the last working link for this account ends, among those *made_by* then; None if there is none.

    *after* and *besides* are as in `is_connecting`. Opening a link or returning through it extends it.
    """
    columns = connect_sessions.c
    left = select(func.max(columns.expires_at, type_=Instant)).where(
        columns.tenant_id == key.tenant,
        columns.connection_id == key.connection,
        columns.principal_id == key.principal,
        _works(now),
        columns.created_at <= made_by,
        columns.started > after,
        columns.started != besides,
    )
    return connection.execute(left).scalar()


def open_links(connection: Connection, principal: str, *, now: datetime) -> list[ConnectSession]:
    """Return the working links for any account of this person. A later revocation may refuse them."""
    found = select(connect_sessions).where(connect_sessions.c.principal_id == principal, _works(now))
    return [_session(row) for row in connection.execute(found)]


def forget_sessions(connection: Connection, through: str, *, now: datetime) -> None:
    """Delete the sessions at a connection that have ended or expired."""
    connection.execute(delete(connect_sessions).where(connect_sessions.c.connection_id == through, not_(_works(now))))


def latest_link(connection: Connection, through: str) -> datetime | None:
    """Return the latest time at which a stored session at a connection may still be used or finish."""
    columns = connect_sessions.c
    left = select(columns.expires_at, columns.finished_at).where(columns.connection_id == through)
    until = (
        expires_at if finished_at is None else max(expires_at, finished_at + FINISHED_WITHIN)
        for expires_at, finished_at in connection.execute(left)
    )
    return max(until, default=None)


def _works(now: datetime) -> ColumnElement[bool]:
    # A used-up session may be at the provider's token endpoint right now, even past its expiry: it is not over yet.
    columns = connect_sessions.c
    in_time = columns.expires_at > now
    used = columns.outcome.is_not_distinct_from(USED)  # false, not NULL, without an outcome: callers negate it
    awaiting = columns.outcome.is_not_distinct_from(AWAITING)
    return ((_OPEN | used | awaiting) & in_time) | (used & (columns.finished_at > now - FINISHED_WITHIN))


def _session(row: Row[tuple[object, ...]]) -> ConnectSession:
    return ConnectSession(
        id=row.id,
        key=AccountKey.of(row),
        state_hash=row.state_hash,
        started=row.started,
        scopes=tuple(row.scopes),
        verifier_sealed=row.verifier_sealed,
        browser_hash=row.browser_hash,
        expires_at=row.expires_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
        result=row.result,
        return_to=row.return_to,
        any_account=row.any_account,
        confirm=row.confirm,
        code_hash=row.code_hash,
        nonce_hash=row.nonce_hash,
        created_at=row.created_at,
    )
