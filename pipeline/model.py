"""The words of the pipeline: deliveries, bells and what acceptance says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from identity.errors import Unavailable
from identity.model import AccessPattern
from pipeline.approvals.signed_answer import SignedAnswer
from pipeline.revocation.signal import Signal

#: The schedulers' name among the heartbeats.
BEAT = "beat"
#: What ticks says so this often; whatever else it has to say, it says at once.
HEARTBEAT = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class SignedDelivery:
    """A delivery whose signature was verified. What it says about its tenant is still only the sender's id."""

    source: str  # github, slack, …
    connection: str  # the provider connection whose secret signed it
    delivery_id: str
    event: str  # pull_request, …
    body: bytes
    document: Mapping[str, Any]
    installation: str | None  # the sender's id of the installation, workspace or organization
    dedupe_by_body: bool  # the sender does not sign its delivery id
    workspace: str | None = None  # of that organization: whose it is decides where the organization is nobody's
    signal: Signal | None = None
    answer: SignedAnswer | None = None  # to an approval


@dataclass(frozen=True, kw_only=True)
class SecurityEvent:
    """A Security Event Token whose signature, issuer and audience were verified."""

    transmitter: str
    jti: str
    events: tuple[str, ...]  # the types it names
    signals: tuple[Signal, ...]
    note: str  # why nothing comes of what asks for nothing
    token: bytes  # as it was signed
    issued_at: datetime | None = None
    stream: str | None = None  # what it says of the stream: enabled, paused or disabled


@dataclass(frozen=True, kw_only=True)
class Bell:
    """A permit for one claim: work of this tenant and pattern is due, for instance this job."""

    job: str
    tenant: str
    pattern: AccessPattern
    rung_until: datetime | None = None  # what the ledger says of it while it is outstanding
    again: bool = False  # nobody answered the one before it


class DeliveryOutcome(StrEnum):
    """What became of a verified delivery."""

    ACCEPTED = "accepted"  # jobs were committed, or an answer to an approval
    IGNORED = "ignored"  # recorded; nobody wants it
    UNRECOGNISED = "unrecognised"  # recorded, and not of the published shape: look at it
    REFUSED = "refused"  # recorded, nothing follows: another tenant's installation, or an answer that does not count
    SIGNAL = "signal"  # a revocation was committed
    DUPLICATE = "duplicate"  # known already; nothing new is recorded


class LeftOut(StrEnum):
    """What a delivery came to nothing for: a place that is not listed. `doctor` tells of these."""

    UNLISTED = "unlisted"  # workflows wanted it, and its installation is none of those that its connection lists
    UNREACHED = "unreached"  # a revocation, in a place that no tenant has


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """What became of a delivery, once it is committed."""

    delivery: str  # our id
    outcome: DeliveryOutcome
    reason: str
    jobs: tuple[str, ...] = ()
    revocations: tuple[str, ...] = ()
    bells: tuple[Bell, ...] = ()
    unknown_user: bool = False  # a job that it started has a user whom nobody knows
    nobodys: bool = False  # no tenant has the installation that it names, or the place of its signal
    strangers: bool = False  # nor has anybody ever connected there
    held: bool = False  # nothing goes out for now, so what it started waits; looked at where a person is told
    told: str = ""  # what the person who did it may read of it: the reason is for operators
    unfollowed: bool = False  # its signal means more accounts than were reached yet


class Unfollowed(Unavailable):
    """The delivery is stored, and accounts that its signal means are still to be reached."""

    def __init__(self, delivery: str, revocations: tuple[str, ...] = ()) -> None:
        """*revocations*: what came of the accounts that were reached."""
        super().__init__(
            f"delivery {delivery} is stored, and its signal means more accounts than were reached in time: "
            "housekeeping reaches the others; send it again, and it is answered when all were",
            retry_after=timedelta(seconds=10),
        )
        self.delivery = delivery
        self.revocations = revocations


class Ring(Protocol):
    """Sends doorbells: best effort, never raises for a broker that is away."""

    def jobs(self, bells: Sequence[Bell]) -> bool:
        """Whether all of them were sent; False: some were not."""

    def revocations(self, ids: Sequence[str]) -> None: ...

    def unheard(self, queue: str) -> int | None:
        """How many bells lie in a queue; None where that is not known, and to ring would fail as well."""
