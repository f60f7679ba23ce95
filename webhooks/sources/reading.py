"""What a source makes of a request: received, challenged or refused. Sans-I/O: bytes in, a value out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from identity.secret import Secret
from pipeline.model import SignedDelivery
from pipeline.signal import Signal


class Fault(StrEnum):
    """Why a request is no delivery."""

    SIGNATURE = "signature"  # nobody we know signed it, or too long ago
    MALFORMED = "malformed"  # signed, but unreadable


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """No delivery. `detail` says what, why and what to do, without quoting the request."""

    fault: Fault
    detail: str


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A signed question whether we are here, with the answer it wants. Nothing happened."""

    answer: str


@dataclass(frozen=True, kw_only=True)
class Received:
    """A delivery whose signature was verified."""

    event: str
    delivery_id: str
    installation: str | None
    document: Mapping[str, Any]
    dedupe_by_body: bool
    signal: Signal | None = None
    note: str = ""  # why nothing comes of it unless a workflow listens; a ping says so here
    unrecognised: str = ""  # what is not as published, where we would have to act on it ourselves

    def signed(self, *, source: str, connection: str, body: bytes) -> SignedDelivery:
        """The delivery as the ledger takes it."""
        return SignedDelivery(
            source=source,
            connection=connection,
            delivery_id=self.delivery_id,
            event=self.event,
            body=body,
            document=self.document,
            installation=self.installation,
            dedupe_by_body=self.dedupe_by_body,
            signal=self.signal,
        )


Reading = Received | Challenge | Refusal


@dataclass(frozen=True, kw_only=True)
class Source:
    """A sender of webhooks.

    `read` takes the headers by lower-case name, the raw body, every live secret and the time.
    """

    name: str
    content_types: frozenset[str]
    read: Callable[[Mapping[str, str], bytes, Sequence[Secret], datetime], Reading]
