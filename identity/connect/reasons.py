"""The reasons why a connect ends without a consent, in words for the person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from sqlalchemy import Connection

from identity.connect.leftovers import Leftover
from identity.hold import find_hold

AGAIN = "ask for a new link where you got this one, and open it in this browser"
OPERATOR = "tell whoever runs this installation"


_HELD = "whoever runs this holds everything for now: nothing is sent to providers"
_LATER = "try again later by the same link, and where that has expired by then, ask for a new one"


class Why(StrEnum):
    """The reasons for a refusal; each has a page of its own."""

    UNKNOWN_LINK = "unknown_link"  # not one of ours, or mistyped
    EXPIRED = "expired"  # its minutes are over
    USED = "used"  # it was used, with or without success, in another browser
    OTHER_BROWSER = "other_browser"  # opened in another browser first
    REVOKED = "revoked"  # access was withdrawn after the link was made
    DECLINED = "declined"  # the person said no at the provider
    WRONG_ACCOUNT = "wrong_account"  # at the provider: not the expected account, or another workspace
    LINKED_ELSEWHERE = "linked_elsewhere"  # this login belongs to another person of the tenant
    UNTRUSTED = "untrusted"  # not the answer that this session waits for
    PROVIDER = "provider"  # the provider gave no token, or did not say whose it is
    OPERATOR = "operator"  # a setting or a client registration is wrong
    HELD = "held"  # the installation is held: no redirect to a provider, no code exchange
    INTERRUPTED = "interrupted"  # it was cut off while it was being finished: nothing is connected
    UNCONFIRMED = "unconfirmed"  # the product that made the link did not confirm its person in time


@dataclass(frozen=True, kw_only=True)
class ConnectRefused:
    """A connect that stored nothing: why, and what to do. *session* is set once the browser is known to be its own."""

    why: Why
    reason: str
    next_step: str
    session: str | None = None


class Refusal(Exception):
    """Ends a callback early. *final*: the session is used up. *detail* is for the audit, never for the page.

    *leftover* holds the tokens that the callback had obtained.
    """

    leftover: Leftover | None = None

    def __init__(self, refused: ConnectRefused, *, final: bool, detail: Mapping[str, str]) -> None:
        super().__init__(refused.reason)
        self.refused = refused
        self.final = final
        self.detail = detail


def refuse(why: Why, reason: str, next_step: str = AGAIN, *, final: bool = False, **detail: str) -> NoReturn:
    """Raise the Refusal that ends the callback."""
    raise Refusal(ConnectRefused(why=why, reason=reason, next_step=next_step), final=final, detail=detail)


def refuse_held() -> NoReturn:
    """End the callback before its code is sent; the session is unchanged."""
    refuse(Why.HELD, _HELD, _LATER)


def held(connection: Connection) -> ConnectRefused | None:
    """Return the refusal to show instead of a link's page during a hold, or None."""
    if find_hold(connection) is None:
        return None
    return ConnectRefused(why=Why.HELD, reason=_HELD, next_step=_LATER)


def refuse_revoked() -> NoReturn:
    """End a callback or confirmation that follows a revocation."""
    refuse(Why.REVOKED, "access was revoked after this link was made", final=True)
