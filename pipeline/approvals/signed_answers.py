"""Answers to approvals from a signed sender: the tenant's aliases identify the person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from pipeline.approvals.views import approval
from pipeline.approvals.votes import Channel, Link, NotCounted, Vote, vote
from pipeline.model import DeliveryOutcome
from pipeline.signed_answer import SignedAnswer
from pipeline.states import ApprovalState


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The result of an answer, and why."""

    outcome: DeliveryOutcome
    reason: str
    told: str  # shown to the person who answered, who may be a stranger


def count(connection: Connection, tenant: str, answer: SignedAnswer, *, through: str, now: datetime) -> Answered:
    """Count an answer for *tenant*; *through*: the provider connection whose sender signed it."""
    # Only aliases made by an admin: a person who opens another's connect link connects as them, so a completed connect
    # does not prove who may answer.
    link = Link(provider=answer.provider, user=answer.user, through=through, by_admin=True)
    principal = link.holder(connection, tenant)
    if principal is None:
        unknown = f"{answer.provider} user {answer.user} of provider connection {through} is nobody's alias"
        return Answered(
            outcome=DeliveryOutcome.REFUSED,
            reason=f"{unknown} by an admin's word: `aswhom aliases add` says whose",
            told="nobody here has said who you are: ask whoever runs this installation",
        )
    given = Vote(
        approval=answer.approval,
        tenant=tenant,
        principal=principal,
        yes=answer.yes,
        digest=answer.digest,
        channel=Channel.SLACK,
        said_as=f"{answer.provider}:{answer.user}",
        link=link,
    )
    counted = vote(connection, given, now=now)
    if isinstance(counted, NotCounted):
        return Answered(outcome=DeliveryOutcome.REFUSED, reason=counted.reason, told=counted.reason)
    reason = f"{principal} answered approval {answer.approval}, which is {counted.state}"
    if counted.state is ApprovalState.OPEN and (view := approval(connection, answer.approval)) is not None:
        reason += "".join(f"; {need.rule}: {need.said_yes} of {need.quorum} said yes" for need in view.needs)
    return Answered(outcome=DeliveryOutcome.ACCEPTED, reason=reason, told=reason)
