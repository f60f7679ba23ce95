"""The words of the pipeline: deliveries, bells and what acceptance says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from identity.model import AccessPattern


@dataclass(frozen=True, kw_only=True)
class RevocationSignal:
    """What a sender said was revoked, in the sender's ids."""

    source: str  # github.github_app_authorization, …
    external_user: str | None = None  # every account of this connection that this person consented to
    installation: str | None = None  # every account of the tenant this installation belongs to
    reason: str = ""


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
    signal: RevocationSignal | None = None


@dataclass(frozen=True, kw_only=True)
class Bell:
    """A permit for one claim: work of this tenant and pattern is due, for instance this job."""

    job: str
    tenant: str
    pattern: AccessPattern
    rung_until: datetime | None = None  # what the ledger says of it while it is outstanding


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """What became of a delivery, once it is committed."""

    delivery: str  # our id
    outcome: str  # accepted, duplicate, ignored, signal
    reason: str
    jobs: tuple[str, ...] = ()
    revocations: tuple[str, ...] = ()
    bells: tuple[Bell, ...] = ()


class Ring(Protocol):
    """Sends doorbells: best effort, never raises for a broker that is away."""

    def jobs(self, bells: Sequence[Bell]) -> bool:
        """Whether all of them were sent; False: some were not."""

    def revocations(self, ids: Sequence[str]) -> None: ...
