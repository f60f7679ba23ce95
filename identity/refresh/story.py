"""What became of an account's latest refresh, for people: which, when, why, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from identity.answers import WANT_PERSON
from identity.model import MINTED, AccountState
from identity.refresh.intents import IntentState
from identity.tables import accounts, grants, refresh_intents

_RECONNECT = "let the person connect the account again"
_SOON = (
    f"{_RECONNECT}, before its present token ends: then the provider is asked once more, and if it wants the person "
    "still, jobs wait for them"
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
    """One refresh, told."""

    intent: str
    generation: int  # of the credential that was presented
    state: IntentState
    presented: int  # how often it may have reached the provider
    started_at: datetime
    settled_by: datetime  # after this an open one is unknown
    finished_at: datetime | None
    retry_at: datetime | None  # not presented again before
    why: str | None  # in the words of whoever settled it
    says: str
    next: str | None  # what a person does; None: it is over


def latest_refresh(connection: Connection, account: str) -> RefreshStory | None:
    """The account's latest refresh; None if there never was one. One that a consent has overtaken asks for nothing."""
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
    # Death is a generation of its own: the one after that which was presented.
    buried = state is IntentState.DEAD and row.present == row.generation + 1
    current = row.present == row.generation or buried
    soon = state is IntentState.FAILED and row.outcome in WANT_PERSON and row.credential not in MINTED
    # Nothing was lost, and yet it is not tried again: the provider wants the person.
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
        next=(_RECONNECT if awaited else _SOON if soon else _NEXT.get(state)) if current else None,
    )
