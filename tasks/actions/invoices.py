"""The sandbox invoice service, which pays a tenant's invoices and accepts only capabilities (deploy/sandbox/invoices).

It does each call once, by its capability's step and request or by its idempotency key, then repeats its response.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.action import (
    Action,
    Call,
    Effect,
    Facts,
    Judgement,
    Money,
    R,
    Recovery,
    Request,
    Response,
    Result,
    UnreadableAnswer,
    Verdict,
    judge_status,
)
from pipeline.reading import error_name, parse

InvoiceId = Annotated[str, Field(pattern=r"^inv_[A-Za-z0-9]{1,40}$", description="the invoice's id, as inv_7")]
Amount = Annotated[
    Decimal,
    Field(
        gt=0,
        max_digits=15,
        decimal_places=2,
        description="in euros, say, with cents behind a point; a payment is of all it asks",
    ),
]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="the invoice's own, as ISO 4217 has it: EUR")]


class Invoice(Result):
    id: str
    vendor: str
    amount: Decimal
    currency: str
    status: Literal["open", "paid"]


class Movement(Result):
    """Money that was moved."""

    id: str
    invoice: str
    amount: Decimal
    currency: str


class _Refusal(Result):
    error: str = ""
    reason: str = ""


class InvoicesAction(Action[R]):
    """Base of the invoice actions: their resource, and the meaning of a response."""

    id: InvoiceId

    def resource(self) -> str:
        return f"invoices/{self.id}"

    def acts_on(self) -> str:
        return f"invoice {self.id}"

    def judge(self, response: Response) -> Judgement:
        by_status = judge_status(response, effect=self.facts.effect)
        if by_status.verdict is Verdict.SUCCESS or response.status >= 500:
            return by_status
        try:
            said = parse(response, _Refusal)
        except UnreadableAnswer:
            return by_status  # an error page of a gateway in front of the service
        name = " ".join(error_name(word) for word in (said.error, said.reason) if word)
        reason = f"the invoices say {name}" if name else by_status.reason
        return replace(by_status, reason=reason)


def _facts(effect: Effect, scope: str) -> Facts:
    return Facts(
        provider="invoices",
        scopes=frozenset({scope}),
        effect=effect,
        attribution=effect is Effect.HIGH_RISK,
        recovery=Recovery.IDEMPOTENT if effect is Effect.READ else Recovery.KEYED,
        capability=True,
    )


class GetInvoice(InvoicesAction[Invoice]):
    """Read an invoice: its vendor, its amount, and whether it is paid."""

    facts = _facts(Effect.READ, "invoices:read")

    def request(self, call: Call) -> Request:
        return Request(method="GET", path=f"/v1/invoices/{self.id}")

    def read(self, response: Response) -> Invoice:
        return parse(response, Invoice)


class _MoveMoney(InvoicesAction[Movement]):
    verb: ClassVar[str]
    amount: Amount
    currency: Currency

    def money(self) -> Money:
        return Money(amount=self.amount, currency=self.currency)

    def request(self, call: Call) -> Request:
        money = {"amount": f"{self.amount:f}", "currency": self.currency}
        return Request(method="POST", path=f"/v1/invoices/{self.id}/{self.verb}", json=money)

    def read(self, response: Response) -> Movement:
        return parse(response, Movement)

    def external_id(self, result: Movement) -> str:
        return result.id


class PayInvoice(_MoveMoney):
    """Pay an open invoice in full. Moves money out."""

    facts = _facts(Effect.HIGH_RISK, "invoices:pay")
    verb = "pay"


class RefundInvoice(_MoveMoney):
    """Refund a paid invoice, in full or in part. Moves money back."""

    facts = _facts(Effect.HIGH_RISK, "invoices:refund")
    verb = "refund"
