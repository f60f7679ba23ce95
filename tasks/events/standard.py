"""Events of our customers' own systems, in the envelope of Standard Webhooks (standardwebhooks.com).

The shapes of `data` below are ours to publish: docs/workflows.md shows them to whoever sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, Field

from pipeline.workflow import Event, ExternalUser, Trigger
from tasks.actions.invoices import InvoiceId
from tasks.actions.salesforce import Id, NextStep

SOURCE = "standard"

E = TypeVar("E", bound=Event)
D = TypeVar("D", bound=BaseModel)

Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,100}$")]


class DealChanged(Event):
    """A deal moved in the customer's own system, and its opportunity shall follow."""

    at: datetime
    opportunity: str
    owner: ExternalUser
    stage: str
    amount: float | None
    next_step: str | None


class IncidentReported(Event):
    """A customer reported something that support shall look at."""

    at: datetime
    reference: str  # the sender's name for it: the same reference is the same incident
    customer: str
    subject: str
    description: str
    severity: Literal["low", "normal", "high", "urgent"]


class PaymentRequested(Event):
    """Somebody asks for an invoice to be paid."""

    invoice: str
    requested_by: ExternalUser


class RefundRequested(PaymentRequested):
    """Somebody asks for a paid invoice to be taken back."""


class _Deal(BaseModel):
    organization: Id
    opportunity: Id
    owner: Id
    stage: Annotated[str, Field(min_length=1, max_length=255)]
    amount: Annotated[float, Field(ge=0)] | None = None
    next_step: NextStep | None = None


class _Incident(BaseModel):
    reference: Reference
    customer: Annotated[str, Field(min_length=1, max_length=200)]
    subject: Annotated[str, Field(min_length=1, max_length=150)]
    description: Annotated[str, Field(min_length=1, max_length=50_000)]
    severity: Literal["low", "normal", "high", "urgent"] = "normal"


class _Payment(BaseModel):
    invoice: InvoiceId
    requested_by: Reference  # the sender's name for a person


class _Envelope(BaseModel):
    timestamp: AwareDatetime
    data: dict[str, Any]


def deal_changed() -> Trigger[DealChanged]:
    """`deal.changed`: who owns the opportunity is said in Salesforce's own ids."""

    def event(at: datetime, deal: _Deal) -> DealChanged:
        # As Salesforce's own answer names people: an id is unique within its organization only.
        owner = ExternalUser(provider="salesforce", id=f"{deal.organization}/{deal.owner}", login=deal.owner)
        return DealChanged(
            at=at,
            opportunity=deal.opportunity,
            owner=owner,
            stage=deal.stage,
            amount=deal.amount,
            next_step=deal.next_step,
        )

    return _trigger("deal.changed", _Deal, event)


def incident_reported() -> Trigger[IncidentReported]:
    """`incident.reported`."""

    def event(at: datetime, incident: _Incident) -> IncidentReported:
        return IncidentReported(at=at, **incident.model_dump())

    return _trigger("incident.reported", _Incident, event)


def payment_requested() -> Trigger[PaymentRequested]:
    """`payment.requested`: who asks is named as the sender names people, which an admin's alias makes somebody."""
    return _trigger("payment.requested", _Payment, lambda _, asked: PaymentRequested(**_named(asked)))


def refund_requested() -> Trigger[RefundRequested]:
    """`refund.requested`, of the same shape."""
    return _trigger("refund.requested", _Payment, lambda _, asked: RefundRequested(**_named(asked)))


def _named(asked: _Payment) -> dict[str, Any]:
    who = ExternalUser(provider=SOURCE, id=asked.requested_by, login=asked.requested_by)
    return {"invoice": asked.invoice, "requested_by": who}


def _trigger(kind: str, shape: type[D], event: Callable[[datetime, D], E]) -> Trigger[E]:
    def read(body: Mapping[str, Any]) -> E:
        envelope = _Envelope.model_validate(body)
        return event(envelope.timestamp, shape.model_validate(envelope.data))

    return Trigger(source=SOURCE, event=kind, read=read)
