"""Signals: what a sender said about authority, in the sender's own ids, and what it asks of us.

A signal is data, made by a pure function of a verified request. The affected accounts are looked up in the transaction
that accepts it (`pipeline.revocation.signals`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class Asks(StrEnum):
    """The request that a signal makes."""

    REVOKE = "revoke"  # the authority was withdrawn
    SUSPEND = "suspend"  # temporary: the account's jobs are parked
    RESUME = "resume"  # the suspension is over
    RESCOPE = "rescope"  # the permissions changed: `scopes` is the complete new set
    RENEW = "renew"  # the present access token states permissions that no longer hold
    NOTE = "note"  # nothing moves; the record says why


@dataclass(frozen=True, kw_only=True)
class People:
    """The accounts these people consented to, by the provider's ids of them."""

    ids: frozenset[str]
    workspaces: frozenset[str] = frozenset()  # where those ids hold, if the provider says
    within: str | None = None  # as in `Workspaces`


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The accounts whose tokens are minted for this installation."""

    id: str


@dataclass(frozen=True, kw_only=True)
class Workspaces:
    """Everything granted in these workspaces or organizations."""

    ids: frozenset[str]
    within: str | None = None  # their possible organization, used if none of the workspaces is listed


@dataclass(frozen=True, kw_only=True)
class Bots:
    """The services that act with tokens of these bots, in these workspaces."""

    workspaces: frozenset[str]
    ids: frozenset[str]
    within: str | None = None  # as in `Workspaces`


@dataclass(frozen=True, kw_only=True)
class Holders:
    """The accounts with this very refresh token, found by a stored digest of it."""

    digest: str = field(repr=False)
    of_prefix: bool = False


@dataclass(frozen=True, kw_only=True)
class Nobody:
    """A target that matches no account; *why* is for people."""

    why: str


Whom = People | Installation | Workspaces | Bots | Holders | Nobody


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One statement of a sender."""

    source: str  # github.installation, slack.tokens_revoked, caep.session-revoked …
    asks: Asks
    whom: tuple[Whom, ...]
    reason: str
    happened_at: datetime | None = None  # by the sender's clock; None: the sender does not say
    precision: timedelta = timedelta(seconds=1)  # of that time, which the sender truncates
    of_account: bool = False  # about the person's account at the sender, not about sessions begun with it before then
    client: str | None = None  # the client registration it names, if any
    scopes: frozenset[str] | None = None  # RESCOPE: the complete new set
