"""Events of our customers' own systems, in the envelope of Standard Webhooks (standardwebhooks.com).

The shapes of `data` below are ours to publish: docs/workflows.md shows them to whoever sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from identity.providers.salesforce import whole_id, whole_person
from pipeline.workflow import Event, ExternalUser, Trigger
from tasks.actions.invoices import InvoiceId
from tasks.actions.salesforce import Id, NextStep, Stage

SOURCE = "standard"

E = TypeVar("E", bound=Event)
D = TypeVar("D", bound=BaseModel)

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,100}$")]


class DealValues(BaseModel):
    """What a deal says of its opportunity; None: nothing."""

    model_config = ConfigDict(frozen=True)

    stage: str
    amount: float | None
    next_step: str | None


class DealChanged(Event):
    """A deal moved in the customer's own system, and its opportunity shall follow."""

    at: datetime
    opportunity: str
    owner: ExternalUser
    stage: str
    amount: float | None
    next_step: str | None
    previous: DealValues | None = None  # before it moved, where the sender says


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


class _Previous(BaseModel):
    """What the change replaced; what is left out did not change."""

    stage: Stage = ""
    amount: Amount | None = None
    next_step: NextStep | None = None


class _Deal(BaseModel):
    organization: Id
    opportunity: Id
    owner: Id
    stage: Stage
    amount: Amount | None = None
    next_step: NextStep | None = None
    previous: _Previous | None = None


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
        owner = ExternalUser(
            provider="salesforce", id=whole_person(f"{deal.organization}/{deal.owner}"), login=whole_id(deal.owner)
        )
        says = deal.model_dump(include=set(DealValues.model_fields))
        replaced = None if deal.previous is None else DealValues(**says | deal.previous.model_dump(exclude_unset=True))
        return DealChanged(at=at, opportunity=deal.opportunity, owner=owner, previous=replaced, **says)

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
