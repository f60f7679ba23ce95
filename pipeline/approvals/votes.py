"""Answers to approvals: check the person, count the answer, decide, and wake the job, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from identity import audit
from identity.audit import AsWhom, Work
from identity.model import PrincipalKind
from identity.people import SIGNED_IN_HERE
from identity.principals import get_principal, resolve_alias, resolve_aliases
from identity.sql.sequence import lock_shared, next_number
from pipeline.approvals.bars import barred, user_scope
from pipeline.approvals.ends import WANTED, WITH_JOBS, end, end_if_over
from pipeline.approvals.needs import is_met
from pipeline.approvals.requested import NO, YES, said_yes
from pipeline.approvals.tables import approval_votes, approvals
from pipeline.batches import in_batches
from pipeline.ledger.clock import NOW
from pipeline.states import ApprovalState


class Channel(StrEnum):
    """The channel an answer was given through."""

    PAGE = "page"
    SLACK = "slack"
    CONSOLE = "console"
    CLI = "cli"


@dataclass(frozen=True, kw_only=True)
class Link:
    """An alias that identified a person where they answered; the fields are the arguments of `resolve_alias`."""

    provider: str
    user: str  # the provider's id
    through: str | None = None
    by_admin: bool = False

    def holder(self, connection: Connection, tenant: str) -> str | None:
        """Return the principal it means at *tenant*, if any."""
        return resolve_alias(connection, tenant, self.provider, self.user, through=self.through, by_admin=self.by_admin)

    def holders(self, connection: Connection, tenants: Sequence[str]) -> frozenset[str]:
        """Return the principals it means at each of *tenants*."""
        resolve = partial(resolve_aliases, connection, through=self.through, by_admin=self.by_admin)
        return frozenset(one for some in in_batches(tenants) for one in resolve(some, self.provider, self.user))


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One person's answer. *digest*: of what they were shown. *said_as*: their identity where they answered.

    *link*: the alias that identified them; None: no alias.
    """

    approval: str
    tenant: str
    principal: str
    yes: bool
    digest: str
    channel: Channel
    said_as: str
    link: Link | None = None
    came_from: str | None = None  # the address it came from, if known


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The answer counts. *state*: the approval's state now; open if more answers are needed."""

    state: ApprovalState


@dataclass(frozen=True, kw_only=True)
class NotCounted:
    """The answer does not count, and why. Nothing was changed, except an approval that was over by itself."""

    reason: str


def vote(connection: Connection, given: Vote, *, now: datetime) -> Counted | NotCounted:
    """Count an answer, decide if it is the deciding one, and wake the job. May run more than once."""
    # Before the approval's row, and before a number: a revocation of this person is then either before or after the
    # answer. A delivery that brings an answer takes its own rows first; so does one that brings a signal, so neither
    # waits for the other's.
    lock_shared(connection, [user_scope(given.principal)])
    of = approvals.c.id == given.approval
    held = connection.execute(
        select(approvals).where(of, approvals.c.tenant_id == given.tenant).with_for_update()
    ).one_or_none()
    if held is None:
        return NotCounted(reason=f"tenant {given.tenant} has no approval {given.approval}")
    if given.digest != held.digest:
        return NotCounted(reason=f"what was shown is not what approval {held.id} is about: look at it again")
    earlier = connection.execute(
        select(approval_votes.c.answer).where(
            approval_votes.c.approval_id == held.id, approval_votes.c.principal_id == given.principal
        )
    ).scalar_one_or_none()
    if earlier is not None:
        return _said_before(held, earlier, given)
    why_not = (
        end_if_over(connection, held, now) or _unlinked(connection, given) or _prohibition(connection, held, given)
    )
    if why_not is not None:
        return NotCounted(reason=why_not)
    number = next_number(connection)
    connection.execute(
        insert(approval_votes).values(
            approval_id=held.id,
            principal_id=given.principal,
            answer=YES if given.yes else NO,
            through=given.channel,
            said_as=given.said_as,
            number=number,
            at=now,
        )
    )
    _record(connection, held, given, number, now)
    return Counted(state=_decide(connection, held, given, now))


def prohibition(connection: Connection, given: Vote) -> str | None:
    """Return why this answer would not count now, or None. Locks nothing: `vote` checks again."""
    of = approvals.c.id == given.approval
    held = connection.execute(select(approvals).where(of, approvals.c.tenant_id == given.tenant)).one_or_none()
    return None if held is None else _prohibition(connection, held, given)


def unsay(
    connection: Connection, *, tenant: str, principal: str, provider: str, external_id: str, now: datetime
) -> list[str]:
    """Void approvals this user of a provider said yes to as *principal*; return them. Wakes the jobs, which ask again.

    Approvals whose step has opened stay, because it is done, and so do those that no step would ask for again. The
    caller holds the principal's lock exclusively, so no further answer of theirs is in progress.
    """
    votes = approval_votes.c
    found = (
        select(approvals, votes.through, votes.said_as)
        .select_from(WITH_JOBS.join(approval_votes, votes.approval_id == approvals.c.id))
        .where(
            WANTED,
            approvals.c.tenant_id == tenant,
            approvals.c.state.in_((ApprovalState.OPEN, ApprovalState.APPROVED)),
            approvals.c.used_at.is_(None),
            approvals.c.expires_at > NOW,
            votes.principal_id == principal,
            votes.answer == YES,
        )
        .order_by(approvals.c.id)
    )
    rows = connection.execute(found.with_for_update(of=approvals)).all()
    voided = [row for row in rows if _said_by(row, provider, external_id)]
    reason = f"{provider} user {external_id}, who said yes as {principal}, is no longer linked to them"
    for held in voided:
        end(connection, held, ApprovalState.VOID, reason, now)
    return [held.id for held in voided]


def _said_by(row: Row[Any], provider: str, external_id: str) -> bool:
    """True if an answer came, or may have come, by that alias.

    The console records only a name. A Slack answer is compared by user id only, because its provider may have another
    name than the alias's. It errs on the side of voiding.
    """
    match row.through:
        case Channel.CONSOLE:
            return provider == SIGNED_IN_HERE
        case Channel.SLACK:
            return bool(row.said_as.partition(":")[2] == external_id)
        case _:
            return False


def _said_before(held: Row[Any], earlier: str, given: Vote) -> Counted | NotCounted:
    """Answer a second vote by one person: repeating the first is fine; taking it back does not count."""
    if earlier == (YES if given.yes else NO):
        return Counted(state=ApprovalState(held.state))
    return NotCounted(reason=f"{given.principal} has answered {earlier} already")


def _unlinked(connection: Connection, given: Vote) -> str | None:
    """Return why the answer is no longer this person's, or None.

    Their lock is held, so that cannot change meanwhile.
    """
    if given.link is None or given.link.holder(connection, given.tenant) == given.principal:
        return None
    return f"{given.link.provider} user {given.link.user} is not linked to {given.principal} any more"


def _prohibition(connection: Connection, held: Row[Any], given: Vote) -> str | None:
    """Return why this person's answer does not count, or None."""
    principal = get_principal(connection, given.principal)
    if principal is None or principal.tenant != held.tenant_id or principal.kind is not PrincipalKind.USER:
        return f"{given.principal} is no user of tenant {held.tenant_id}"
    why_not = barred(connection, held.job_id, [given.principal]).get(given.principal)
    if why_not is not None:
        return f"{given.principal} {why_not}"
    if not any(given.principal in need["approvers"] for need in held.needs):
        return f"{given.principal} is not among those whom the policy asks"
    return None


def _decide(connection: Connection, held: Row[Any], given: Vote, now: datetime) -> ApprovalState:
    if not given.yes:
        return end(connection, held, ApprovalState.DENIED, f"{given.principal} said no", now)
    yes = said_yes(connection, held)
    if not is_met(held.needs, yes):
        return ApprovalState.OPEN
    return end(connection, held, ApprovalState.APPROVED, f"by {', '.join(sorted(yes))}", now)


def _record(connection: Connection, held: Row[Any], given: Vote, number: int, now: datetime) -> None:
    detail: dict[str, Any] = {
        "approval": held.id,
        "answer": YES if given.yes else NO,
        "through": str(given.channel),
        "said_as": given.said_as,
        "shown": held.digest,
        "policy": held.policy_version,
        "request_hash": held.request_hash,
    }
    if given.came_from is not None:
        detail["from"] = given.came_from
    audit.record(
        connection,
        "approval.answered",
        AsWhom(tenant=held.tenant_id, principal=given.principal),
        Work(job=held.job_id, action=held.action),
        id=f"{held.id}.vote.{number}",
        at=now,
        number=number,
        outcome=YES if given.yes else NO,
        detail=detail,
    )
