"""Stripe's API: subscriptions and their invoices (docs.stripe.com/api).

Every write carries an idempotency key, and Stripe repeats its first response for a day
(docs.stripe.com/api/idempotent_requests). The scopes are the permissions of a restricted key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from pipeline.action import (
    Action,
    Call,
    Effect,
    EndpointClass,
    Facts,
    Judgement,
    Limits,
    Per,
    R,
    Recovery,
    Request,
    Response,
    Result,
    Verdict,
    judge_status,
    retry_after,
)
from pipeline.reading import error_name, parse

SubscriptionId = Annotated[
    str, Field(pattern=r"^sub_[A-Za-z0-9]{1,100}$", description="the subscription's id, as sub_1MowQV")
]
# docs.stripe.com/metadata: at most 40 characters, without brackets; values at most 500
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$", description="a key of the subscription's metadata")]
Value = Annotated[str, Field(min_length=1, max_length=500, description="what stands there from now on")]


class Subscription(Result):
    """A subscription's agreed price by its items and its newest invoice's amount, in the smallest currency unit."""

    id: str
    status: str = "active"  # the default for results stored when only active ones were listed
    currency: str
    agreed: int | None  # None: some price is not a fixed amount per unit
    invoiced: int | None  # None: there is no invoice yet
    note: str | None  # what an earlier reconciliation wrote


class Subscriptions(Result):
    subscriptions: tuple[Subscription, ...]
    more: bool


class Noted(Result):
    id: str


class _Price(BaseModel):
    # docs.stripe.com/api/prices/object: null if tiered or with decimals.
    unit_amount: int | None
    transform_quantity: dict[str, Any] | None = None  # the price is per package of units


class _Item(BaseModel):
    price: _Price
    quantity: int | None = None  # absent: metered usage

    @property
    def agreed(self) -> int | None:
        if self.price.unit_amount is None or self.price.transform_quantity or self.quantity is None:
            return None
        return self.price.unit_amount * self.quantity


class _Items(BaseModel):
    data: list[_Item]


class _Invoice(BaseModel):
    subtotal: int


class _Row(BaseModel):
    id: str
    status: str
    currency: str
    items: _Items
    latest_invoice: _Invoice | None
    metadata: dict[str, str]


class _Page(BaseModel):
    data: list[_Row]
    has_more: bool


class _Fault(BaseModel):
    type: str = ""
    code: str = ""


class _Refusal(BaseModel):
    error: _Fault


class StripeAction(Action[R]):
    """Base of Stripe's actions: the meaning of a response, and which limit refused."""

    def judge(self, response: Response) -> Judgement:
        by_status = judge_status(response, effect=self.facts.effect)
        if by_status.verdict is Verdict.SUCCESS:
            return by_status
        if response.status == 409:
            # docs.stripe.com/error-low-level#idempotency: another request with this key is still in progress.
            return Judgement(verdict=Verdict.UNKNOWN, reason="status 409", retry_after=retry_after(response.headers))
        try:
            fault = _Refusal.model_validate_json(response.body).error
        except ValidationError:
            return by_status
        name = error_name(fault.code or fault.type) if fault.code or fault.type else by_status.reason
        return replace(by_status, reason=f"stripe says {name}")

    def limits(self, response: Response) -> Limits:
        # docs.stripe.com/rate-limits: no remaining count; `global-rate` and `global-concurrency` apply to the account.
        reason = response.headers.get("stripe-rate-limited-reason", "")
        return Limits(whole=response.status == 429 and reason.startswith("global-"))


def _facts(effect: Effect, *scopes: str, endpoint: str, recovery: Recovery) -> Facts:
    # docs.stripe.com/rate-limits: each operation has its own limit, per Stripe account.
    return Facts(
        provider="stripe",
        scopes=frozenset(scopes),
        effect=effect,
        attribution=False,
        recovery=recovery,
        endpoints=EndpointClass(name=endpoint, per=Per.TENANT),
    )


class ListSubscriptions(StripeAction[Subscriptions]):
    """List one page of the subscriptions that are not canceled, newest first, each with its newest invoice."""

    # docs.stripe.com/stripe-apps/reference/permissions: an expanded object needs its own permission.
    facts = _facts(
        Effect.READ,
        "subscriptions:read",
        "invoices:read",
        endpoint="subscriptions.list",
        recovery=Recovery.IDEMPOTENT,
    )

    size: int = Field(default=100, ge=1, le=100, description="how many a page has")
    after: SubscriptionId | None = Field(
        default=None, description="the last id of the page before, where `more` was true"
    )
    note_key: Key = Field(default="note", description="the metadata key whose value is answered as `note`")

    def request(self, call: Call) -> Request:
        # docs.stripe.com/api/subscriptions/list: without a status, all that are not canceled.
        params = {"limit": str(self.size), "expand[]": "data.latest_invoice"}
        if self.after is not None:
            params["starting_after"] = self.after
        return Request(method="GET", path="/v1/subscriptions", params=params)

    def read(self, response: Response) -> Subscriptions:
        page = parse(response, _Page)
        return Subscriptions(subscriptions=tuple(map(self._row, page.data)), more=page.has_more)

    def _row(self, row: _Row) -> Subscription:
        agreed = [item.agreed for item in row.items.data]
        fixed = [amount for amount in agreed if amount is not None]
        return Subscription(
            id=row.id,
            status=row.status,
            currency=row.currency,
            agreed=sum(fixed) if len(fixed) == len(agreed) else None,
            invoiced=row.latest_invoice.subtotal if row.latest_invoice else None,
            note=row.metadata.get(self.note_key),
        )


class AnnotateSubscription(StripeAction[Noted]):
    """Set one value in a subscription's metadata. Moves no money."""

    facts = _facts(Effect.WRITE, "subscriptions:write", endpoint="subscriptions.update", recovery=Recovery.KEYED)

    id: SubscriptionId
    key: Key
    value: Value

    def request(self, call: Call) -> Request:
        return Request(method="POST", path=f"/v1/subscriptions/{self.id}", form={f"metadata[{self.key}]": self.value})

    def read(self, response: Response) -> Noted:
        return parse(response, Noted)

    def external_id(self, result: Noted) -> str:
        return result.id
