"""Why a connect ends without a consent, in words for the person who tried."""

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
    """The reasons there are; each has a page of its own."""

    UNKNOWN_LINK = "unknown_link"  # not one of ours, or mistyped
    EXPIRED = "expired"  # its minutes are over
    USED = "used"  # it connected, or failed to connect, in a browser that is not this one
    OTHER_BROWSER = "other_browser"  # opened in another browser first
    REVOKED = "revoked"  # access was withdrawn after the link was made
    DECLINED = "declined"  # the person said no at the provider
    WRONG_ACCOUNT = "wrong_account"  # signed in at the provider as somebody else than the one awaited, or elsewhere
    LINKED_ELSEWHERE = "linked_elsewhere"  # this login belongs to another person of the tenant
    UNTRUSTED = "untrusted"  # an answer that is not the one this session waits for
    PROVIDER = "provider"  # the provider gave no token, or did not say whose it is
    OPERATOR = "operator"  # a setting or a client registration is wrong
    HELD = "held"  # the installation is held: nobody is sent to a provider, and no code is exchanged
    INTERRUPTED = "interrupted"  # it was cut off while it was being finished: nothing is connected
    UNCONFIRMED = "unconfirmed"  # the product that made the link did not say in time that it was its own person


@dataclass(frozen=True, kw_only=True)
class ConnectRefused:
    """Nothing was stored: why, and what to do. *session*: whose, once the person's browser is known to be the one."""

    why: Why
    reason: str
    next_step: str
    session: str | None = None


class Refusal(Exception):
    """Leaves a callback early. *final*: the session was used up. *detail* is for the audit, never for the page.

    *leftover* is what the callback had won by then.
    """

    leftover: Leftover | None = None

    def __init__(self, refused: ConnectRefused, *, final: bool, detail: Mapping[str, str]) -> None:
        super().__init__(refused.reason)
        self.refused = refused
        self.final = final
        self.detail = detail


def refuse(why: Why, reason: str, next_step: str = AGAIN, *, final: bool = False, **detail: str) -> NoReturn:
    """End the callback here."""
    raise Refusal(ConnectRefused(why=why, reason=reason, next_step=next_step), final=final, detail=detail)


def refuse_held() -> NoReturn:
    """End the callback before its code is shown; the session stays as it is."""
    refuse(Why.HELD, _HELD, _LATER)


def held(connection: Connection) -> ConnectRefused | None:
    """What is said in place of a link's page while it is held: who went on would come back for nothing."""
    if find_hold(connection) is None:
        return None
    return ConnectRefused(why=Why.HELD, reason=_HELD, next_step=_LATER)


def refuse_revoked() -> NoReturn:
    """End the callback, or the confirmation, that a revocation came before."""
    refuse(Why.REVOKED, "access was revoked after this link was made", final=True)
