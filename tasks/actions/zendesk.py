"""Zendesk's Ticketing API: tickets (developer.zendesk.com/api-reference/ticketing/tickets/tickets).

Zendesk honours an idempotency key for two hours, and a job may wait longer. A ticket therefore carries an external id
derived from the step, by which tickets can be listed: after an attempt without a response, the ticket is found by it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from pipeline.action import (
    Action,
    Call,
    Effect,
    EndpointClass,
    Facts,
    Left,
    Limits,
    Per,
    Recovery,
    Request,
    Response,
    Result,
)
from pipeline.reading import count, parse

# developer.zendesk.com/api-reference/introduction/rate-limits: for the whole account, in the current minute.
ACCOUNT = EndpointClass(name="account", per=Per.TENANT)
WINDOW = timedelta(minutes=1)

Subject = Annotated[str, Field(min_length=1, max_length=150, description="one line of plain text")]
Text = Annotated[str, Field(min_length=1, max_length=60_000, description="plain text, which the customer may see")]
Tag = Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,80}$")]
Priority = Annotated[Literal["low", "normal", "high", "urgent"], Field(description="how urgent it is")]


class Ticket(Result):
    id: int
    url: str


class _Listed(BaseModel):
    id: int
    url: str
    external_id: str | None


def mark(call: Call) -> str:
    """Return the external id by which a ticket is found again."""
    return f"aswhom:{call.idempotency_key[:32]}"


class CreateTicket(Action[Ticket]):
    """Open a ticket for what a customer reported."""

    facts = Facts(
        provider="zendesk",
        scopes=frozenset({"tickets:write", "tickets:read"}),
        effect=Effect.WRITE,
        attribution=False,
        recovery=Recovery.PROBE,
        endpoints=ACCOUNT,
        additive=True,
    )

    subject: Subject
    body: Text
    priority: Priority = "normal"
    tags: tuple[Tag, ...] = Field(default=(), description="words of lower case, digits, and _ . - without a space")

    def request(self, call: Call) -> Request:
        ticket = {
            "subject": self.subject,
            "comment": {"body": self.body},
            "priority": self.priority,
            "external_id": mark(call),
            "tags": list(self.tags),
        }
        return Request(method="POST", path="/api/v2/tickets", json={"ticket": ticket})

    def read(self, response: Response) -> Ticket:
        return parse(response, Ticket, at=("ticket",))

    def limits(self, response: Response) -> Limits:
        names = ("x-rate-limit-remaining", "x-rate-limit", "ratelimit-reset")
        remaining, limit, reset = (count(response.headers.get(name, "")) for name in names)
        if remaining is None or limit is None:
            return Limits()
        resets_in = WINDOW if reset is None else timedelta(seconds=reset)  # sent only by list endpoints
        return Limits(left=Left(remaining=remaining, limit=limit, resets_in=min(resets_in, WINDOW)))

    def probe(self, call: Call) -> Request:
        return Request(method="GET", path="/api/v2/tickets", params={"external_id": mark(call)})

    def found(self, response: Response, call: Call) -> Ticket | None:
        listed = parse(response, list[_Listed], at=("tickets",))
        mine = (one for one in listed if one.external_id == mark(call))
        return next((Ticket(id=one.id, url=one.url) for one in mine), None)

    def external_id(self, result: Ticket) -> str:
        return str(result.id)
