"""Counting an answer that a signed sender tells of: its person is whom the tenant's aliases say."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from pipeline.approvals.signed_answer import SignedAnswer
from pipeline.ledger.votes import Channel, Link, NotCounted, Vote, vote
from pipeline.model import DeliveryOutcome


def count(
    connection: Connection, tenant: str, answer: SignedAnswer, *, through: str, now: datetime
) -> tuple[DeliveryOutcome, str]:
    """Count it for *tenant*; *through* is the provider connection whose sender signed it.

    Returns the delivery's outcome, and why.
    """
    # Whoever opens a link for another connects as them, so what a connect made is no word on who may answer.
    link = Link(provider=answer.provider, user=answer.user, through=through, by_admin=True)
    principal = link.holder(connection, tenant)
    if principal is None:
        unknown = f"{answer.provider} user {answer.user} of provider connection {through} is nobody's alias"
        return DeliveryOutcome.REFUSED, f"{unknown} by an admin's word: `aswhom aliases add` says whose"
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
        return DeliveryOutcome.REFUSED, counted.reason
    return DeliveryOutcome.ACCEPTED, f"{principal} answered approval {answer.approval}, which is {counted.state}"
