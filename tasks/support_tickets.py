"""Opens a ticket for what a customer reported, however long the help desk is unavailable."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field

from pipeline.run import OnceUsed, Run
from pipeline.workflow import SERVICE, workflow
from tasks.actions import zendesk
from tasks.events.standard import IncidentReported, incident_reported


class SupportConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    patience_hours: float = Field(default=12, gt=0, le=14 * 24)
    tags: tuple[zendesk.Tag, ...] = ()


@workflow(
    agent="support",
    on=incident_reported(),
    event=IncidentReported,
    triggered_by=lambda event: event.customer,
    uses={zendesk.CreateTicket: SERVICE},
    config=SupportConfig,
)
def open_ticket(run: Run[SupportConfig], event: IncidentReported) -> None:
    """Open one ticket per incident, however often the sender reports it."""
    ticket = zendesk.CreateTicket(
        subject=event.subject,
        body=f"{event.customer} reports:\n\n{event.description}",
        priority=event.severity,
        tags=run.config.tags,
    )
    patience = timedelta(hours=run.config.patience_hours)
    with suppress(OnceUsed):  # it was reported before and has changed since: people have its ticket
        run.do(ticket, as_=run.service, once=event.reference, patience=patience)
