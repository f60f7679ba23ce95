"""Counting an answer that a signed sender tells of: its person is whom the tenant's aliases say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from pipeline.approvals.signed_answer import SignedAnswer
from pipeline.ledger.votes import Channel, Link, NotCounted, Vote, vote
from pipeline.model import DeliveryOutcome


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What became of an answer, and why."""

    outcome: DeliveryOutcome
    reason: str
    told: str  # to whoever gave it, who may be a stranger


def count(connection: Connection, tenant: str, answer: SignedAnswer, *, through: str, now: datetime) -> Answered:
    """Count it for *tenant*; *through* is the provider connection whose sender signed it."""
    # Whoever opens a link for another connects as them, so what a connect made is no word on who may answer.
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
    return Answered(outcome=DeliveryOutcome.ACCEPTED, reason=reason, told=reason)
