"""Outcomes of a connect, as told to the person's browser however often it asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from identity.connect.reasons import AGAIN, ConnectRefused, Why
from identity.connect_sessions.sessions import AWAITING, CONNECTED, FINISHED_WITHIN, USED, ConnectSession
from identity.model import AccountKey


@dataclass(frozen=True, kw_only=True)
class Connected:
    """The account is connected."""

    session: str
    key: AccountKey
    account: str
    generation: int
    login: str | None  # the provider's name for the person
    missing_scopes: tuple[str, ...]  # requested but not granted


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """Another callback of this session is in progress: ask again."""

    session: str


@dataclass(frozen=True, kw_only=True)
class Awaiting:
    """The person consented; the product that made the link must confirm them *until* then."""

    session: str
    key: AccountKey
    until: datetime
    code: str | None = None  # carried there by the browser; None: already given out, once


@dataclass(frozen=True, kw_only=True)
class InLine:
    """The provider's rate limit is reached and the code not sent yet: come back in *turn_in*."""

    session: str
    turn_in: timedelta


Outcome = Connected | ConnectRefused | Finishing | Awaiting | InLine


#: The reason of a connect whose confirmation came too late.
TOO_LATE = "the place where you got the link did not confirm in time that it was you"


def refused(why: Why, reason: str, next_step: str = AGAIN) -> ConnectRefused:
    """Return a refusal of which nothing is stored."""
    return ConnectRefused(why=why, reason=reason, next_step=next_step)


def as_noted(connected: Connected) -> dict[str, object]:
    """Return the result that the session stores, for `told` to read."""
    return {
        "account": connected.account,
        "generation": connected.generation,
        "login": connected.login,
        "missing_scopes": list(connected.missing_scopes),
    }


def told(session: ConnectSession, *, now: datetime) -> Outcome:
    """Return the outcome of *session*."""
    said = session.result or {}
    if session.finished_at is None:
        if now >= session.expires_at:
            return refused(Why.EXPIRED, "the link was not used in time")
        return refused(Why.UNTRUSTED, "the provider has not answered yet", "go on there, or open your link again")
    if session.outcome == CONNECTED:
        return Connected(
            session=session.id,
            key=session.key,
            account=said["account"],
            generation=said["generation"],
            login=said["login"],
            missing_scopes=tuple(said["missing_scopes"]),
        )
    if session.outcome == AWAITING:
        if now < session.expires_at:
            return Awaiting(session=session.id, key=session.key, until=session.expires_at)
        return ConnectRefused(why=Why.UNCONFIRMED, reason=TOO_LATE, next_step=AGAIN, session=session.id)
    if session.outcome == USED and now < session.finished_at + FINISHED_WITHIN:
        return Finishing(session=session.id)
    cut_off = session.outcome in (None, USED)
    return ConnectRefused(
        why=Why.INTERRUPTED if cut_off else Why(session.outcome or ""),
        reason=said.get("reason", "it was cut off before it was done, so nothing is connected"),
        next_step=said.get("next_step", AGAIN),
        session=session.id,
    )
