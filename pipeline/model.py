"""The pipeline's shared types: deliveries, bells and acceptances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from identity.errors import Unavailable
from identity.model import AccessPattern
from pipeline.signal import Signal
from pipeline.signed_answer import SignedAnswer

#: The name of the schedulers among the heartbeats.
BEAT = "beat"
#: Longest interval between two heartbeats; a change is reported at once.
HEARTBEAT = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class SignedDelivery:
    """A delivery whose signature was verified. Its tenant is only named by the sender's id so far."""

    source: str  # github, slack, …
    connection: str  # the provider connection whose secret signed it
    delivery_id: str
    event: str  # pull_request, …
    body: bytes
    document: Mapping[str, Any]
    installation: str | None  # the sender's id of the installation, workspace or organization
    dedupe_by_body: bool  # the sender does not sign its delivery id
    workspace: str | None = None  # the organization's workspace, whose owner decides if no tenant has the organization
    signal: Signal | None = None
    answer: SignedAnswer | None = None  # an answer to an approval


@dataclass(frozen=True, kw_only=True)
class RatedTenant:
    """The tenant whose rate limit a delivery counts against."""

    id: str
    rate: int | None = None  # its own limit, in deliveries a minute; None: the setting's


@dataclass(frozen=True, kw_only=True)
class SecurityEvent:
    """A Security Event Token whose signature, issuer and audience were verified."""

    transmitter: str
    jti: str
    events: tuple[str, ...]  # the event types it names
    signals: tuple[Signal, ...]
    note: str  # why an event that asks for nothing has no consequence
    token: bytes  # as signed
    issued_at: datetime | None = None
    stream: str | None = None  # the stream status it reports: enabled, paused or disabled


@dataclass(frozen=True, kw_only=True)
class Bell:
    """A permit for one claim: work of this tenant and pattern is due, for instance this job."""

    job: str
    tenant: str
    pattern: AccessPattern
    rung_until: datetime | None = None  # the ledger's value while the bell is outstanding
    again: bool = False  # the previous bell went unanswered


class DeliveryOutcome(StrEnum):
    """The result of a verified delivery."""

    ACCEPTED = "accepted"  # jobs were committed, or an answer to an approval
    IGNORED = "ignored"  # recorded; no workflow wants it
    UNRECOGNISED = "unrecognised"  # recorded, but not of the published shape: a person should look at it
    REFUSED = "refused"  # recorded without effect: another tenant's installation, or an answer that does not count
    SIGNAL = "signal"  # a revocation was committed
    DUPLICATE = "duplicate"  # already known; nothing new is recorded


class LeftOut(StrEnum):
    """Reasons why a delivery did not start all that it should have; `doctor` reports places that are not listed."""

    MISREAD = "misread"  # it started jobs, but a workflow that is on for its tenant could not read it
    UNLISTED = "unlisted"  # workflows wanted it, but its connection does not list its installation
    UNREACHED = "unreached"  # it asks for a revocation in a place that belongs to no tenant, or of unknown people


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The committed result of accepting a delivery."""

    delivery: str  # our id
    outcome: DeliveryOutcome
    reason: str
    jobs: tuple[str, ...] = ()
    revocations: tuple[str, ...] = ()
    bells: tuple[Bell, ...] = ()
    unknown_user: bool = False  # the user of a job it started is unknown
    # The installation it names, or the place of its signal, belongs to no tenant; or the people its signal names in a
    # listed place have no account.
    nobodys: bool = False
    strangers: bool = False  # its signal names nobody, and no place, that ever connected
    held: bool = False  # the installation is on hold, so started jobs wait; only read where a person is told
    told: str = ""  # text for the person who caused it; `reason` is for operators
    unfollowed: bool = False  # its signal covers more accounts than have been reached
    misread: Mapping[str, str] = field(default_factory=dict)  # why workflows that are on could not read it, by name


class Unfollowed(Unavailable):
    """The delivery is stored, but its signal covers accounts that have not been reached yet."""

    def __init__(self, delivery: str, revocations: tuple[str, ...] = ()) -> None:
        """*revocations* are those declared for the accounts reached so far."""
        super().__init__(
            f"delivery {delivery} is stored, and its signal means more accounts than were reached in time: "
            "housekeeping reaches the others; send it again, and it is answered when all were",
            retry_after=timedelta(seconds=10),
        )
        self.delivery = delivery
        self.revocations = revocations


class Ring(Protocol):
    """Sends doorbells, best effort; never raises when the broker is away."""

    def jobs(self, bells: Sequence[Bell]) -> bool:
        """Return True if all of them were sent, False if some were not."""

    def revocations(self, ids: Sequence[str]) -> None: ...

    def unheard(self, queue: str) -> int | None:
        """Return the number of bells in a queue; None if it is unknown, in which case ringing would fail as well."""
