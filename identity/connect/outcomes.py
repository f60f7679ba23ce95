"""What a connect came to, as it is told to the person's browser, however often it asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from identity.connect.reasons import AGAIN, ConnectRefused, Why
from identity.connect.sessions import AWAITING, CONNECTED, FINISHED_WITHIN, USED, ConnectSession
from identity.model import AccountKey


@dataclass(frozen=True, kw_only=True)
class Connected:
    """The account is connected."""

    session: str
    key: AccountKey
    account: str
    generation: int
    login: str | None  # as the provider calls the person
    missing_scopes: tuple[str, ...]  # asked for and not granted


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """A callback of this session is being answered elsewhere: look again."""

    session: str


@dataclass(frozen=True, kw_only=True)
class Awaiting:
    """The person consented; the product that made the link has *until* then to say that it is its own."""

    session: str
    key: AccountKey
    until: datetime
    code: str | None = None  # what the browser carries there; None: it was given out, once


@dataclass(frozen=True, kw_only=True)
class InLine:
    """The provider gives no more tokens for now, and the code was not shown yet: come back when its turn is."""

    session: str
    turn_in: timedelta


Outcome = Connected | ConnectRefused | Finishing | Awaiting | InLine


#: Of a connect that waits for a confirmation no more.
TOO_LATE = "the place where you got the link did not confirm in time that it was you"


def refused(why: Why, reason: str, next_step: str = AGAIN) -> ConnectRefused:
    """Nothing was connected, and nothing is stored of it."""
    return ConnectRefused(why=why, reason=reason, next_step=next_step)


def as_noted(connected: Connected) -> dict[str, object]:
    """What its session keeps of it, for `told` to read."""
    return {
        "account": connected.account,
        "generation": connected.generation,
        "login": connected.login,
        "missing_scopes": list(connected.missing_scopes),
    }


def told(session: ConnectSession, *, now: datetime) -> Outcome:
    """How *session* ended."""
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
