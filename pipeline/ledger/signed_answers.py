"""Counting an answer that a signed sender tells of: its person is whom the tenant's aliases say."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from identity.principals import resolve_alias
from pipeline.approvals.signed_answer import SignedAnswer
from pipeline.ledger.votes import NotCounted, Through, Vote, vote


def count(connection: Connection, tenant: str, answer: SignedAnswer, *, through: str, now: datetime) -> tuple[str, str]:
    """Count it for *tenant*; *through* is the provider connection whose sender signed it.

    Returns the delivery's outcome, and why.
    """
    # Whoever opens a link for another connects as them, so what a connect made is no word on who may answer.
    find = partial(resolve_alias, through=through, by_admin=True)
    principal = find(connection, tenant, answer.provider, answer.user)
    if principal is None:
        unknown = f"{answer.provider} user {answer.user} of provider connection {through} is nobody's alias"
        return "refused", f"{unknown} by an admin's word: `aswhom aliases add` says whose"
    given = Vote(
        approval=answer.approval,
        tenant=tenant,
        principal=principal,
        yes=answer.yes,
        digest=answer.digest,
        through=Through.SLACK,
        said_as=f"{answer.provider}:{answer.user}",
    )
    counted = vote(connection, given, now=now)
    if isinstance(counted, NotCounted):
        return "refused", counted.reason
    return "accepted", f"{principal} answered approval {answer.approval}, which is {counted.state}"
