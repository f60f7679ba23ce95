"""Nightly comparison of each subscription with its invoice, noting the differences."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipeline.run import Run
from pipeline.workflow import SERVICE, Daily, Tick, workflow
from tasks.actions import stripe
from tasks.refusals import Postponed

NOTE = "aswhom_reconciliation"  # the metadata key of the notes
SETTLED = "settled"  # replaces a difference that is gone
NOT_COMPARED = "not compared"  # replaces a difference that is no longer checked
# States whose newest invoice covers the agreed price, paid or not: a trial's is for nothing, and a paused one has none.
INVOICED = frozenset({"active", "past_due", "unpaid"})


class BillingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    page: int = Field(default=100, ge=1, le=100)
    tolerance: int = Field(default=0, ge=0)  # in the smallest currency unit: smaller differences are ignored


def difference(subscription: stripe.Subscription, *, tolerance: int) -> str | None:
    """Return the note to write: the difference, or what became of the noted one. None: nothing new."""
    agreed, invoiced = subscription.agreed, subscription.invoiced
    if agreed is None or invoiced is None or subscription.status not in INVOICED:
        return NOT_COMPARED if subscription.note not in (None, SETTLED, NOT_COMPARED) else None
    if abs(agreed - invoiced) <= tolerance:
        return SETTLED if subscription.note not in (None, SETTLED) else None
    note = f"agreed {agreed}, invoiced {invoiced} {subscription.currency}"
    return None if note == subscription.note else note


@workflow(
    agent="billing",
    schedule=Daily(cron="30 2 * * *"),
    uses={stripe.ListSubscriptions: SERVICE, stripe.AnnotateSubscription: SERVICE},
    config=BillingConfig,
)
def billing_reconciliation(run: Run[BillingConfig], event: Tick) -> None:
    """Run one step per page and per difference, so that an interrupted run resumes where it was.

    It compares the state rather than last night's changes: one run makes up for any number of missed ones. The state is
    that of each page as it was read, which a run that was interrupted does not read again.
    """
    after: str | None = None
    refusals = Postponed()
    while True:
        wanted = stripe.ListSubscriptions(size=run.config.page, after=after, note_key=NOTE)
        page = run.do(wanted, as_=run.service)
        for subscription in page.subscriptions:
            note = difference(subscription, tolerance=run.config.tolerance)
            if note is None:
                continue
            with refusals:  # the other subscriptions must still be checked
                run.do(stripe.AnnotateSubscription(id=subscription.id, key=NOTE, value=note), as_=run.service)
        if not page.more or not page.subscriptions:
            break
        after = page.subscriptions[-1].id
    refusals.raise_first()
