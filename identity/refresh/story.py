"""The outcome of an account's latest refresh, for people: which, when, why, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from identity.model import MINTED, AccountState, Credential
from identity.oauth.answers import UNNAMED_401, WANT_PERSON, WITHHELD
from identity.refresh.intents import IntentState
from identity.refresh.requests import may_be_withheld
from identity.refresh.tables import refresh_intents
from identity.tables import accounts, grants

_RECONNECT = "let the person connect the account again"
_SOON = (
    f"{_RECONNECT}, before its present token ends: then the provider is asked once more, and if it wants the person "
    "still, jobs wait for them"
)
_BY_ITSELF = "; it is asked again by itself, every few minutes"
_ACT: Mapping[str, str] = {
    UNNAMED_401: "look at the secret of its provider connection, and at what stands before the token endpoint",
    "unauthorized_client": "let an admin of its organisation allow the client there again, or revoke the account",
}
_ACT_ON_REQUEST = "look whether its organisation, and the client's registration, allow what is asked for"
_ASSERTION = (
    "look at the key of its provider connection, at this machine's clock, and at what it was allowed there" + _BY_ITSELF
)
_SAYS: Mapping[IntentState, str] = {
    IntentState.OPEN: "it was written down before sending, and its answer is awaited",
    IntentState.ANSWERED: "its answer is stored and not yet read",
    IntentState.COMMITTED: "its tokens were stored",
    IntentState.DEAD: "the provider does not take the credential any more",
    IntentState.UNKNOWN: "the provider may have taken the credential, and its answer is lost",
    IntentState.DISCARDED: "a revocation, a consent or a signal put it out of date while it was asked",
    IntentState.FAILED: "it was without effect",
}
_NEXT: Mapping[IntentState, str] = {
    IntentState.OPEN: "nothing: housekeeping settles it if its owner is gone",
    IntentState.ANSWERED: "nothing: whoever needs the token, or housekeeping, reads it",
    IntentState.DEAD: _RECONNECT,
    IntentState.UNKNOWN: "let the person connect the account again: to present the credential anew could end the grant",
    IntentState.FAILED: "nothing: it is tried again when a token is needed",
}


@dataclass(frozen=True, kw_only=True)
class RefreshStory:
    """One refresh, described for people."""

    intent: str
    generation: int  # of the credential that was presented
    state: IntentState
    presented: int  # how often it may have reached the provider
    started_at: datetime
    settled_by: datetime  # an intent still open after this is unknown
    finished_at: datetime | None
    retry_at: datetime | None  # not presented again earlier
    why: str | None  # as worded by the code that settled it; for people only
    says: str
    next: str | None  # what a person should do; None: nothing is left to do


@dataclass(frozen=True, kw_only=True)
class RefusedAccounts:
    """The accounts of one provider connection that are refused with the same code."""

    connection: str
    code: str
    number: int
    account: str  # one of them


def latest_refresh(connection: Connection, account: str) -> RefreshStory | None:
    """Return the account's latest refresh, or None. A refresh superseded by a new consent needs no action."""
    columns = refresh_intents.c
    newest = (
        select(
            refresh_intents,
            grants.c.generation.label("present"),
            accounts.c.state.label("account_state"),
            accounts.c.credential,
        )
        .join_from(refresh_intents, accounts, accounts.c.id == columns.account_id)
        .outerjoin(grants, grants.c.account_id == columns.account_id)
        .where(columns.account_id == account)
        .order_by(columns.opened.desc())
        .limit(1)
    )
    row = connection.execute(newest).one_or_none()
    if row is None:
        return None
    state = IntentState(row.state)
    # Burying a grant increments its generation past the one that was presented.
    buried = state is IntentState.DEAD and row.present == row.generation + 1
    current = row.present == row.generation or buried
    soon = state is IntentState.FAILED and row.code in WANT_PERSON and row.credential not in MINTED
    # Nothing was lost, but it is not retried: the provider wants the person.
    awaited = state is IntentState.FAILED and row.account_state == AccountState.NEEDS_RECONNECT
    return RefreshStory(
        intent=row.id,
        generation=row.generation,
        state=state,
        presented=row.presented,
        started_at=row.started_at,
        settled_by=row.settled_by,
        finished_at=row.finished_at,
        retry_at=row.retry_at,
        why=row.outcome,
        says=_SAYS[state],
        next=(_RECONNECT if awaited else _SOON if soon else _next(row, state)) if current else None,
    )


def refused_accounts(connection: Connection, *, since: datetime) -> list[RefusedAccounts]:
    """Return, per provider connection and code, the accounts refused since then until somebody acts."""
    columns, code = refresh_intents.c, refresh_intents.c.code
    minted = accounts.c.credential.in_(sorted(MINTED))
    told = code.in_(sorted({*WITHHELD, "unauthorized_client", "invalid_grant", UNNAMED_401}))
    found = (
        select(accounts.c.connection_id, code, func.count().label("number"), func.min(accounts.c.id).label("account"))
        .join_from(refresh_intents, accounts, accounts.c.id == columns.account_id)
        .join(grants, (grants.c.account_id == columns.account_id) & (grants.c.generation == columns.generation))
        .where(columns.finished_at >= since, columns.state == IntentState.FAILED)
        .where(accounts.c.state == AccountState.ACTIVE, told | (minted & code.in_(sorted(WANT_PERSON))))
        .group_by(accounts.c.connection_id, code)
        .order_by(accounts.c.connection_id, code)
    )
    return [
        RefusedAccounts(connection=row.connection_id, code=row.code, number=row.number, account=row.account)
        for row in connection.execute(found)
    ]


def _next(row: Row[Any], state: IntentState) -> str | None:
    """Return what a person should do about a refresh in *state*, or None."""
    code, credential = row.code or "", Credential(row.credential)
    if state is not IntentState.FAILED:
        return _NEXT.get(state)
    if credential is Credential.JWT_BEARER and code in ("invalid_grant", "unauthorized_client"):
        return _ASSERTION
    if not may_be_withheld(code, credential):
        return _NEXT[state]
    return _ACT.get(code, _ACT_ON_REQUEST) + _BY_ITSELF
