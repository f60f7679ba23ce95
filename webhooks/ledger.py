"""The web's interface to the ledger. Implemented by `pipeline.deliveries.intake.Intake`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from identity.secret import Secret
from pipeline.authoring.matching import Considered, Match
from pipeline.authoring.registry import Registry
from pipeline.model import Acceptance, DeliveryOutcome, RatedTenant, SignedDelivery


class ConnectionSecrets(Protocol):
    """Verification data of one provider connection."""

    @property
    def provider(self) -> str: ...

    @property
    def tenant(self) -> str | None: ...

    @property
    def config(self) -> Mapping[str, str]:
        """The connection's configuration for its provider or sender."""

    @property
    def api_url(self) -> str:
        """The provider's API base URL; replies go only to its host."""

    @property
    def webhook_secrets(self) -> tuple[Secret, ...]:
        """Every live secret: two during a rotation."""


class Ledger(Protocol):
    """The ledger as the web sees it. Every method raises Unavailable when the database is busy, full or unreachable."""

    def connection_secrets(self, connection: str) -> ConnectionSecrets | None:
        """Return the connection's verification data. None: no such provider connection."""

    def rated_tenant(
        self, connection: str, installation: str | None, workspace: str | None, *, owner: str | None
    ) -> RatedTenant | None:
        """Return the tenant whose rate limit a delivery counts against: *owner*, if the connection is a tenant's.

        None: it belongs to no tenant, or is refused.
        """

    def accept(
        self,
        delivery: SignedDelivery,
        matches: Sequence[Match],
        *,
        outcome: DeliveryOutcome,
        reason: str,
        misfits: Sequence[Considered],
        began: float,
    ) -> Acceptance:
        """Commit the delivery and its jobs, or its revocation, in one transaction. The returned value is committed.

        *outcome* (ignored or unrecognised) and *reason* are recorded when the delivery leads to nothing. *misfits*: the
        workflows that could not read it. *began*, by `time.monotonic()`, is when its sender started to wait.
        """

    def usages(self, delivery: SignedDelivery, workflows: Registry) -> Sequence[str]:
        """Return usages that would work where *delivery* came from, of workflows that are on for its tenant."""

    def held(self) -> bool:
        """True if accepted work waits because nothing goes out until an operator releases the hold."""

    def fits(self) -> None:
        """Return if writes to this ledger would count; nearly free after the first success."""

    def ready(self) -> None:
        """Return if a delivery could be accepted now."""

    def not_installed(self, workflows: Registry) -> Sequence[str]:
        """Return the names of workflows that are on for some tenant and missing from *workflows*."""
