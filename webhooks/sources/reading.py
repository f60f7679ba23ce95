"""Results of reading a request: received, challenged or refused. Sans-I/O: bytes in, a value out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from identity.secret import Secret
from pipeline.model import Acceptance, SignedDelivery
from pipeline.signal import Signal
from pipeline.signed_answer import SignedAnswer


class Fault(StrEnum):
    """Reasons for refusing a request."""

    SIGNATURE = "signature"  # not signed by any known secret
    STALE = "stale"  # signed by a known secret, but not recently: a replay, or a clock that is off
    MALFORMED = "malformed"  # signed, but unreadable


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A refused request. `detail` says what, why and what to do, without quoting the request."""

    fault: Fault
    detail: str


def unreadable(why: str) -> Refusal:
    """Return the refusal of a signed but unreadable request."""
    return Refusal(fault=Fault.MALFORMED, detail=f"The signature is right, but {why}.")


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A signed check of the endpoint, with the answer it expects, if any. Nothing happened."""

    answer: str | None


@dataclass(frozen=True, kw_only=True)
class Telling:
    """A report to the person who acted in a chat.

    *says* takes the acceptance, and usages to suggest if no workflow wanted the delivery; None: nothing to report.
    """

    says: Callable[[Acceptance, Sequence[str]], Mapping[str, Any] | None]
    at: str | None = None  # the chat's response URL; None: in the response itself


@dataclass(frozen=True, kw_only=True)
class Received:
    """A delivery whose signature was verified."""

    event: str
    delivery_id: str
    installation: str | None
    document: Mapping[str, Any]
    dedupe_by_body: bool
    workspace: str | None = None  # a workspace of that organization
    sender: str = ""  # the name by which workflows listen to it, if not the source's
    signal: Signal | None = None
    answer: SignedAnswer | None = None  # to an approval
    note: str = ""  # why nothing follows unless a workflow listens, for example a ping
    withheld: bool = False  # the sender says that it left out events, which will never come
    unrecognised: str = ""  # how it deviates from the published shape of an event that we would act on ourselves
    answered_with_nothing: bool = False  # the body of our response would be shown to a person
    telling: Telling | None = None  # how that person is told the outcome

    def signed(self, *, source: str, connection: str, body: bytes) -> SignedDelivery:
        """Return the delivery as the ledger takes it."""
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


def _any_text(_: Secret) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A sender of webhooks.

    `read` takes the headers by lower-case name, the raw body, every live secret and the time. `reread` takes the event,
    the delivery id and the body of a delivery that was verified and stored before, and raises `Malformed`.
    `configured`, for sources that vary between provider connections, takes the connection's configuration and raises
    Misconfigured. `prohibits` says why a secret cannot be one of this sender's. `a_person_waits`: the sender gives up
    after three seconds and tells a person that it failed.
    """

    name: str
    content_types: frozenset[str]
    read: Callable[[Mapping[str, str], bytes, Sequence[Secret], datetime], Reading]
    reread: Callable[[str, str, bytes], Received | Challenge]
    configured: Callable[[Mapping[str, str]], Source] | None = None
    prohibits: Callable[[Secret], str | None] = _any_text
    a_person_waits: bool = False

    def of(self, config: Mapping[str, str]) -> Source:
        """Return this source as the provider connection's configuration adapts it. Raises Misconfigured."""
        return self.configured(config) if self.configured else self
