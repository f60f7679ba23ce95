"""What a source makes of a request: received, challenged or refused. Sans-I/O: bytes in, a value out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from identity.secret import Secret
from pipeline.approvals.signed_answer import SignedAnswer
from pipeline.model import Acceptance, SignedDelivery
from pipeline.revocation.signal import Signal


class Fault(StrEnum):
    """Why a request is no delivery."""

    SIGNATURE = "signature"  # nobody we know signed it
    STALE = "stale"  # somebody we know did, but not just now: a replay, or a clock that is off
    MALFORMED = "malformed"  # signed, but unreadable


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """No delivery. `detail` says what, why and what to do, without quoting the request."""

    fault: Fault
    detail: str


def unreadable(why: str) -> Refusal:
    """The refusal of what somebody we know signed."""
    return Refusal(fault=Fault.MALFORMED, detail=f"The signature is right, but {why}.")


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A signed question whether we are here, with the answer it wants, if any. Nothing happened."""

    answer: str | None


@dataclass(frozen=True, kw_only=True)
class Telling:
    """How a person who did something in a chat is told what came of it.

    *says* takes what was accepted, and what could have been said where no workflow wanted it; None: there is nothing to
    tell.
    """

    says: Callable[[Acceptance, Sequence[str]], Mapping[str, Any] | None]
    at: str | None = None  # where the chat takes it; None: in the answer itself


@dataclass(frozen=True, kw_only=True)
class Received:
    """A delivery whose signature was verified."""

    event: str
    delivery_id: str
    installation: str | None
    document: Mapping[str, Any]
    dedupe_by_body: bool
    workspace: str | None = None  # of that organization
    sender: str = ""  # by what name workflows listen to it, where that is not the source's
    signal: Signal | None = None
    answer: SignedAnswer | None = None  # to an approval
    note: str = ""  # why nothing comes of it unless a workflow listens; a ping says so here
    withheld: bool = False  # the sender says that it left out events, which never come
    unrecognised: str = ""  # what is not as published, where we would have to act on it ourselves
    answered_with_nothing: bool = False  # a person would be shown what the answer says
    telling: Telling | None = None  # how that person is told what came of it

    def signed(self, *, source: str, connection: str, body: bytes) -> SignedDelivery:
        """The delivery as the ledger takes it."""
        return SignedDelivery(
            source=self.sender or source,
            connection=connection,
            delivery_id=self.delivery_id,
            event=self.event,
            body=body,
            document=self.document,
            installation=self.installation,
            workspace=self.workspace,
            dedupe_by_body=self.dedupe_by_body,
            signal=self.signal,
            answer=self.answer,
        )


Reading = Received | Challenge | Refusal


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a body says that was verified when it came: for a look at it later."""

    document: Mapping[str, Any]
    installation: str | None
    workspace: str | None = None  # of that organization


def _any_text(_: Secret) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A sender of webhooks.

    `read` takes the headers by lower-case name, the raw body, every live secret and the time. `content` takes a body
    that was verified before, and raises `Malformed`. A source whose ways differ from one provider connection to the
    next has `configured`, which takes the connection's configuration and raises Misconfigured. `prohibits` says why a
    secret cannot be one of this sender's. `a_person_waits`: who sends gives up on an answer after three seconds, and
    tells a person so.
    """

    name: str
    content_types: frozenset[str]
    read: Callable[[Mapping[str, str], bytes, Sequence[Secret], datetime], Reading]
    content: Callable[[bytes], Content]
    configured: Callable[[Mapping[str, str]], Source] | None = None
    prohibits: Callable[[Secret], str | None] = _any_text
    a_person_waits: bool = False

    def of(self, config: Mapping[str, str]) -> Source:
        """This source as the provider connection with that configuration has it. Raises Misconfigured."""
        return self.configured(config) if self.configured else self
