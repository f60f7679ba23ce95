"""Keeps an opportunity up to date as the account executive who owns it, even hours after they went offline."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from pipeline.run import Run
from pipeline.workflow import USER, workflow
from tasks.actions import salesforce
from tasks.events.standard import DealChanged, DealValues, deal_changed


class CrmConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: dict[str, salesforce.Stage] = {}  # the sender's stage name → Salesforce's


@workflow(
    agent="sales-assistant",
    on=deal_changed(),
    event=DealChanged,
    user=lambda event: event.owner,
    uses={salesforce.GetOpportunity: USER, salesforce.UpdateOpportunity: USER},
    config=CrmConfig,
)
def update_opportunity(run: Run[CrmConfig], event: DealChanged) -> None:
    """Apply the event's values, unless somebody changed the opportunity after the event."""
    opportunity = run.do(salesforce.GetOpportunity(id=event.opportunity), as_=run.user)
    update = salesforce.UpdateOpportunity(
        id=event.opportunity,
        stage=run.config.stages.get(event.stage, event.stage),
        amount=event.amount,
        next_step=event.next_step,
    )
    # A job may run late, and a person's newer change wins. A write by another event's job looks equally new, in the
    # same name: only the values tell whose change it was.
    if opportunity.modified_at > event.at and not _as_before(opportunity, update, event.previous, run.config.stages):
        return
    run.do(update, as_=run.user)


def _as_before(
    found: salesforce.Opportunity,
    update: salesforce.UpdateOpportunity,
    previous: DealValues | None,
    stages: Mapping[str, salesforce.Stage],
) -> bool:
    """True if each value to be set is as before the event, or already set."""
    if previous is None:
        return False
    before = previous.model_dump() | {"stage": stages.get(previous.stage, previous.stage)}
    sets = update.model_dump(exclude={"id"}, exclude_none=True)
    return all(_kept(getattr(found, name)) in (_kept(before[name]), _kept(value)) for name, value in sets.items())


def _kept(value: object) -> object:
    """Normalize a value as Salesforce stores it: an empty text as None. An amount of 0 stays."""
    return None if value == "" else value
