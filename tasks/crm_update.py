"""Keep an opportunity up to date as the account executive who owns it, hours after she closed her laptop."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.run import Run
from pipeline.workflow import USER, workflow
from tasks.actions import salesforce
from tasks.events.standard import DealChanged, deal_changed


class CrmConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: dict[str, salesforce.Stage] = {}  # what the sender calls a stage → what Salesforce calls it


@workflow(
    agent="sales-assistant",
    on=deal_changed(),
    event=DealChanged,
    user=lambda event: event.owner,
    uses={salesforce.GetOpportunity: USER, salesforce.UpdateOpportunity: USER},
    config=CrmConfig,
)
def update_opportunity(run: Run[CrmConfig], event: DealChanged) -> None:
    """Set what the event says, unless somebody changed the opportunity after it."""
    opportunity = run.do(salesforce.GetOpportunity(id=event.opportunity), as_=run.user)
    if opportunity.modified_at > event.at:
        return  # a job may come late, and a person's newer word stands
    update = salesforce.UpdateOpportunity(
        id=event.opportunity,
        stage=run.config.stages.get(event.stage, event.stage),
        amount=event.amount,
        next_step=event.next_step,
    )
    run.do(update, as_=run.user)
