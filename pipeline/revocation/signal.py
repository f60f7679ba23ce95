"""What a sender said about authority, in the sender's own ids, and what it asks of us.

A signal is data, made by a pure function of a verified request. Whose accounts it means is looked up in the transaction
that accepts it (`pipeline.ledger.signals`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class Asks(StrEnum):
    """What a signal asks for."""

    REVOKE = "revoke"  # the authority was withdrawn
    SUSPEND = "suspend"  # not for now: the account's jobs are parked
    RESUME = "resume"  # the suspension is over
    RESCOPE = "rescope"  # what it may do is another now: `scopes` says all of it
    RENEW = "renew"  # the present access token says what holds no more
    NOTE = "note"  # nothing moves, and the record says why


@dataclass(frozen=True, kw_only=True)
class People:
    """The accounts that these people consented to, by the provider's ids of them."""

    ids: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The accounts whose tokens are minted for this installation."""

    id: str


@dataclass(frozen=True, kw_only=True)
class Workspaces:
    """Everything that was granted in these workspaces or organizations."""

    ids: frozenset[str]
    within: str | None = None  # the organization that they may be of, which counts where none of them is anybody's


@dataclass(frozen=True, kw_only=True)
class Bots:
    """The services that act by tokens of these bots, in these workspaces."""

    workspaces: frozenset[str]
    ids: frozenset[str]
    within: str | None = None  # as of `Workspaces`


@dataclass(frozen=True, kw_only=True)
class Holders:
    """The accounts with this very refresh token, by one of the digests that are kept of it."""

    digest: str = field(repr=False)
    of_prefix: bool = False


@dataclass(frozen=True, kw_only=True)
class Nobody:
    """Nobody who can be known by it; *why* is for people."""

    why: str


Whom = People | Installation | Workspaces | Bots | Holders | Nobody


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One thing a sender said."""

    source: str  # github.installation, slack.tokens_revoked, caep.session-revoked …
    asks: Asks
    whom: tuple[Whom, ...]
    reason: str
    happened_at: datetime | None = None  # by the sender's clock; None: the sender does not say
    precision: timedelta = timedelta(seconds=1)  # of that time, which was cut down to it
    of_account: bool = False  # of the person's account at the sender, not of what was begun by it until then
    client: str | None = None  # the client registration it names, where it names one
    scopes: frozenset[str] | None = None  # RESCOPE: all that it may do now
