"""Events of customers' own systems, in the Standard Webhooks envelope (standardwebhooks.com).

We publish the shapes of `data` below: docs/workflows.md documents them for senders.
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
    """A deal's values for its opportunity; None: not set."""

    model_config = ConfigDict(frozen=True)

    stage: str
    amount: float | None
    next_step: str | None


class DealChanged(Event):
    """A deal changed in the customer's own system, and its opportunity should follow."""

    at: datetime
    opportunity: str
    owner: ExternalUser
    stage: str
    amount: float | None
    next_step: str | None
    previous: DealValues | None = None  # before the change, if the sender says


class IncidentReported(Event):
    """A customer reported something for support to look at."""

    at: datetime
    reference: str  # the sender's name for it: the same reference is the same incident
    customer: str
    subject: str
    description: str
    severity: Literal["low", "normal", "high", "urgent"]


class PaymentRequested(Event):
    """Somebody requests the payment of an invoice."""

    invoice: str
    requested_by: ExternalUser


class RefundRequested(PaymentRequested):
    """Somebody requests the refund of a paid invoice."""


class _Previous(BaseModel):
    """The values that the change replaced; omitted ones did not change."""

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
    """Trigger on `deal.changed`, which names the opportunity's owner by Salesforce ids."""

    def event(at: datetime, deal: _Deal) -> DealChanged:
        # In the format of Salesforce's own identity response: an id is unique only within its organization.
        owner = ExternalUser(
            provider="salesforce", id=whole_person(f"{deal.organization}/{deal.owner}"), login=whole_id(deal.owner)
        )
        says = deal.model_dump(include=set(DealValues.model_fields))
        replaced = None if deal.previous is None else DealValues(**says | deal.previous.model_dump(exclude_unset=True))
        return DealChanged(at=at, opportunity=deal.opportunity, owner=owner, previous=replaced, **says)

    return _trigger("deal.changed", _Deal, event)


def incident_reported() -> Trigger[IncidentReported]:
    """Trigger on `incident.reported`."""

    def event(at: datetime, incident: _Incident) -> IncidentReported:
        return IncidentReported(at=at, **incident.model_dump())

    return _trigger("incident.reported", _Incident, event)


def payment_requested() -> Trigger[PaymentRequested]:
    """Trigger on `payment.requested`, whose requester is the sender's name for a person, mapped by an admin's alias."""
    return _trigger("payment.requested", _Payment, lambda _, asked: PaymentRequested(**_named(asked)))


def refund_requested() -> Trigger[RefundRequested]:
    """Trigger on `refund.requested`, which has the same shape."""
    return _trigger("refund.requested", _Payment, lambda _, asked: RefundRequested(**_named(asked)))


def _named(asked: _Payment) -> dict[str, Any]:
    who = ExternalUser(provider=SOURCE, id=asked.requested_by, login=asked.requested_by)
    return {"invoice": asked.invoice, "requested_by": who}


def _trigger(kind: str, shape: type[D], event: Callable[[datetime, D], E]) -> Trigger[E]:
    def read(body: Mapping[str, Any]) -> E:
        envelope = _Envelope.model_validate(body)
        return event(envelope.timestamp, shape.model_validate(envelope.data))

    return Trigger(source=SOURCE, event=kind, read=read)
