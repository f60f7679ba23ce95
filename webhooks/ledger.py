"""What the web needs of the ledger. `pipeline.intake.Intake` implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from identity.secret import Secret
from pipeline.model import Acceptance, DeliveryOutcome, SignedDelivery
from pipeline.workflow import Match, Registry


class ConnectionSecrets(Protocol):
    """What verifies the deliveries of one provider connection."""

    @property
    def provider(self) -> str: ...

    @property
    def tenant(self) -> str | None: ...

    @property
    def config(self) -> Mapping[str, str]:
        """What the connection says of the provider or sender."""

    @property
    def api_url(self) -> str:
        """Where the provider is: what it may be told is told there."""

    @property
    def webhook_secrets(self) -> tuple[Secret, ...]:
        """Every live one: two while a secret is rotated."""


class Ledger(Protocol):
    """Every method raises Unavailable when the database has no turn, no room or no answer."""

    def connection_secrets(self, connection: str) -> ConnectionSecrets | None:
        """None: there is no such provider connection."""

    def tenant_of(self, connection: str, installation: str | None, workspace: str | None = None) -> str | None:
        """The tenant of a delivery that came through *connection* and names *installation*.

        None: nobody's, or it is refused.
        """

    def accept(
        self, delivery: SignedDelivery, matches: Sequence[Match], *, outcome: DeliveryOutcome, reason: str, began: float
    ) -> Acceptance:
        """Commit the delivery and its jobs, or its revocation, in one transaction. What it returns is committed.

        *outcome* (ignored or unrecognised) and *reason* are recorded where nothing follows from the delivery. *began*,
        of `time.monotonic()`, is since when its sender waits.
        """

    def usages(self, delivery: SignedDelivery, workflows: Registry) -> Sequence[str]:
        """What could be typed where *delivery* is from: usages of what listens to it and is on for its tenant."""

    def held(self) -> bool:
        """Whether what is taken now waits, since nothing goes out until an operator releases it."""

    def fits(self) -> None:
        """Return if what is written to it would count; nearly free once it does."""

    def ready(self) -> None:
        """Return if a delivery could be accepted now."""

    def not_installed(self, workflows: Registry) -> Sequence[str]:
        """The names of workflows that are on for somebody and not among those."""
