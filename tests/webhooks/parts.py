"""A ledger in memory, a ring that remembers, and the hands of a sender."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from identity.errors import Unavailable
from identity.model import AccessPattern
from identity.secret import Secret
from pipeline.authoring.matching import Considered, Match
from pipeline.authoring.registry import Registry
from pipeline.model import Acceptance, Bell, DeliveryOutcome, RatedTenant, SignedDelivery
from pipeline.run import Run
from pipeline.workflow import Event, NoConfig, Trigger, workflow
from webhooks.sources.reading import Fault, Reading, Refusal

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECRET, OLD_SECRET = "canary-new-4f1c", "canary-old-77aa"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


@dataclass(frozen=True, kw_only=True)
class Secrets:
    provider: str
    tenant: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    api_url: str = "https://slack.com/api"
    webhook_secrets: tuple[Secret, ...] = (Secret(SECRET),)


@dataclass
class MemoryLedger:
    """The web's ledger without a database: it keeps what was accepted, in order."""

    connections: dict[str, Secrets] = field(
        default_factory=lambda: {
            "gh": Secrets(provider="github"),
            "gh-rotating": Secrets(provider="github", webhook_secrets=(Secret(SECRET), Secret(OLD_SECRET))),
            "gh-bare": Secrets(provider="github", webhook_secrets=()),
            "sl": Secrets(provider="slack"),
            "ln": Secrets(provider="linear"),
        }
    )
    away: Unavailable | None = None
    unfit: Unavailable | None = None
    bug: Exception | None = None
    answer: Acceptance | None = None  # to whatever comes; else one made up after what the receiver asks for
    is_held: bool = False
    lacking: tuple[str, ...] = ()  # workflows that are on and not installed
    accepted: list[tuple[SignedDelivery, Acceptance]] = field(default_factory=list)
    nobodys: set[str] = field(default_factory=set)  # installations
    rates: dict[str, int] = field(default_factory=dict)  # of tenants, their own
    began: float = 0.0  # since when the last one's sender waited

    def connection_secrets(self, connection: str) -> Secrets | None:
        return self.connections.get(connection)

    def rated_tenant(
        self, connection: str, installation: str | None, workspace: str | None, *, owner: str | None
    ) -> RatedTenant | None:
        tenant = owner or (f"tenant-of-{installation}" if installation else None)
        if tenant is None or (owner is None and installation in self.nobodys):
            return None
        return RatedTenant(id=tenant, rate=self.rates.get(tenant))

    def usages(self, delivery: SignedDelivery, workflows: Registry) -> Sequence[str]:
        return [usage for of in workflows.usages(delivery.source, delivery.event).values() for usage in of]

    def held(self) -> bool:
        return self.is_held

    def fits(self) -> None:
        if self.unfit:
            raise self.unfit

    def ready(self) -> None:
        if self.away:
            raise self.away

    def not_installed(self, workflows: Registry) -> Sequence[str]:
        return self.lacking

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
        """Whatever workflow there is, it is on."""
        self.began = began
        misread = {one.workflow.name: one.refusal for one in misfits}
        if self.bug:
            raise self.bug
        self.ready()
        ours = f"dlv-{len(self.accepted) + 1}"
        if self.answer:
            made = self.answer
        elif delivery.signal:
            made = Acceptance(
                delivery=ours, outcome=DeliveryOutcome.SIGNAL, reason="revoked", revocations=(f"rev-{ours}",)
            )
        elif matches:
            jobs = tuple(f"job-{ours}-{number}" for number, _ in enumerate(matches))
            bells = tuple(Bell(job=job, tenant="t", pattern=AccessPattern.SERVICE) for job in jobs)
            made = Acceptance(delivery=ours, outcome=DeliveryOutcome.ACCEPTED, reason="", jobs=jobs, bells=bells)
            made = replace(made, misread=misread)
        elif misread:
            why = "; ".join(misread.values())
            made = Acceptance(delivery=ours, outcome=DeliveryOutcome.UNRECOGNISED, reason=why, misread=misread)
        else:
            made = Acceptance(delivery=ours, outcome=outcome, reason=reason)
        self.accepted.append((delivery, made))
        return made

    @property
    def deliveries(self) -> list[SignedDelivery]:
        return [delivery for delivery, _ in self.accepted]


@dataclass
class MemoryRing:
    """Remembers what it was rung for: the bells of jobs, and the ids of jobs and revocations in their order."""

    bells: list[Bell] = field(default_factory=list)
    rung: list[str] = field(default_factory=list)
    lying: Callable[[], int] = lambda: 0  # in each queue

    def jobs(self, bells: Sequence[Bell]) -> bool:
        self.bells += bells
        self.rung += [bell.job for bell in bells]
        return True

    def revocations(self, ids: Sequence[str]) -> None:
        self.rung += ids

    def unheard(self, queue: str) -> int:
        return self.lying()


class Opened(Event):
    number: int


def _opened(body: Mapping[str, Any]) -> Opened | None:
    return Opened(number=body["issue"]["number"]) if body.get("action") == "opened" else None


def _note_issue(run: Run[NoConfig], event: Opened) -> None:
    """What a job would do is not the web's business."""


def registry() -> Registry:
    """One workflow, started by an opened issue at GitHub."""
    trigger = Trigger(source="github", event="issues", read=_opened)
    return Registry([workflow(agent="tester", uses={}, event=Opened, on=trigger)(_note_issue)])


def github_headers(
    body: bytes, *, secret: str = SECRET, event: str = "issues", delivery: str = "d-1"
) -> dict[str, str]:
    """The headers GitHub would send with *body*."""
    return {
        "X-Hub-Signature-256": "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex(),
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
    }


def slack_headers(body: bytes, *, secret: str = SECRET, at: datetime = NOW) -> dict[str, str]:
    """The headers Slack would send with *body*."""
    stamp = str(int(at.timestamp()))
    message = b"v0:" + stamp.encode() + b":" + body
    signature = hmac.digest(secret.encode(), message, "sha256").hex()
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={signature}"}


def linear_headers(body: bytes, *, secret: str = SECRET, delivery: str = "d-1") -> dict[str, str]:
    """The headers Linear would send with *body*."""
    signature = hmac.digest(secret.encode(), body, "sha256").hex()
    return {"Linear-Signature": signature, "Linear-Delivery": delivery}


def lower(headers: Mapping[str, str], *, content_type: str = JSON) -> dict[str, str]:
    """As a source gets them."""
    return {**{name.lower(): value for name, value in headers.items()}, "content-type": content_type}


def delivery_for(body: bytes) -> str:
    """A delivery id that differs with the body."""
    return sha256(body).hexdigest()[:32]


def fault_of(reading: Reading) -> Fault | None:
    """Why it was refused, if it was."""
    return reading.fault if isinstance(reading, Refusal) else None
