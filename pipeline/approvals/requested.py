"""Approvals in the ledger: requested by a step, and checked again when the step opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from identity import audit
from identity.audit import AsWhom, Work
from identity.digests import json_digest
from identity.sql.sequence import next_number
from pipeline.approvals.bars import barred
from pipeline.approvals.needs import by_name, is_met, resolved, unheld
from pipeline.approvals.tables import approval_votes, approvals
from pipeline.authoring.declared_workflow import COMPENSATION
from pipeline.jobs.awaited import wake
from pipeline.jobs.claims import park
from pipeline.jobs.intents import Approved, Ended, Intent, PolicyMoved, still_ours
from pipeline.ledger.clock import ledger_now
from pipeline.states import APPROVAL_MOVES, ApprovalState, Purpose, Wait

YES, NO = "yes", "no"
# Parts of what was shown that do not decide whether it is the same: they may change or be reworded while what would be
# done stays as it is. Approvers are not resolved again.
_NOT_COMPARED = frozenset({"needs", "in_doubt", "started_by"})
TOO_FEW = "of those who said yes, too few may approve it any more"


@dataclass(frozen=True, kw_only=True)
class NotApproved:
    """The step must not be done, and why."""

    reason: str


Asked = Approved | NotApproved | Ended | PolicyMoved


def approval_of(id: str) -> str:
    """Return the `waits_for` of a job that waits for this approval."""
    return f"approval:{id}"


def ask(connection: Connection, intent: Intent, *, id: str, shown: Mapping[str, Any]) -> Asked:
    """Return a step's approval, its refusal, or the end of the run, with the job parked until the decision.

    *shown*: what approvers are shown. *id*: for a new approval. A run that has lost its job asks nobody.
    """
    if (moved := still_ours(connection, intent)) is not None:
        return moved
    now = ledger_now(connection)
    held = _newest(connection, intent)
    if held is not None and not _same(held, intent, shown):
        move_approval(connection, held, ApprovalState.VOID, reason="what would be done changed", now=now)
        held = None
    if held is None or held.state == ApprovalState.VOID:
        return _ask_anew(connection, intent, id=id, shown=shown, now=now)
    if (
        held.expires_at <= now
        and held.used_at is None
        and move_approval(connection, held, ApprovalState.EXPIRED, reason="it expired", now=now)
    ):
        given = held.state == ApprovalState.APPROVED
        late = "was approved, and had not opened when that expired" if given else "was not approved in time"
        return NotApproved(reason=f"{intent.action} {late} (approval {held.id})")
    match ApprovalState(held.state):
        case ApprovalState.APPROVED:
            by = said_yes(connection, held)
            if not is_met(held.needs, by):
                move_approval(connection, held, ApprovalState.VOID, reason=TOO_FEW, now=now)
                return _ask_anew(connection, intent, id=id, shown=shown, now=now)
            return Approved(id=held.id, by=tuple(sorted(by)))
        case ApprovalState.OPEN:
            return _wait(connection, intent, held.id, held.expires_at - now)
        case _:
            return NotApproved(reason=f"{intent.action} was not approved: {held.reason} (approval {held.id})")


def _newest(connection: Connection, intent: Intent) -> Row[Any] | None:
    """Return and lock the step's newest approval since its job was accepted; a replay asks again."""
    found = select(approvals).where(
        approvals.c.job_id == intent.job.id,
        approvals.c.position == intent.position,
        approvals.c.asked > intent.job.accepted,
    )
    return connection.execute(found.order_by(approvals.c.asked.desc()).limit(1).with_for_update()).one_or_none()


def _same(held: Row[Any], intent: Intent, shown: Mapping[str, Any]) -> bool:
    """True if the approval was requested for exactly what would be done now."""
    as_asked = {name: value for name, value in shown.items() if name not in _NOT_COMPARED}
    as_asked |= {name: value for name, value in held.shown.items() if name in _NOT_COMPARED}
    return (held.request_hash, held.policy_version, held.principal_id, held.digest) == (
        intent.request_hash,
        intent.decision.policy,
        intent.principal,
        json_digest(as_asked),
    )


def _ask_anew(
    connection: Connection, intent: Intent, *, id: str, shown: Mapping[str, Any], now: datetime
) -> NotApproved | Ended:
    if (why_not := unheld(connection, intent)) is not None:
        return NotApproved(reason=why_not)
    needs = [resolved(connection, intent.job.tenant, one) for one in intent.decision.constraints.approvals]
    for need in needs:
        eligible = len(need["approvers"]) - len(barred(connection, intent.job.id, need["approvers"]))
        if eligible < need["quorum"]:
            asked = "whoever asked may not, nor whoever made or holds the key by which it was asked for"
            if intent.job.workflow.endswith(COMPENSATION):
                asked = (
                    "whoever asked for the job that it compensates may not, nor whoever revoked, nor whoever made or "
                    "holds the key by which either was done"
                )
            reason = (
                f"the policy's rule {need['rule']!r} wants {need['quorum']} to approve {intent.action}, and "
                f"{eligible} of those it names can: {asked}, nor whoever is stopped or was revoked since"
            )
            return NotApproved(reason=reason)
    shown = {**shown, "needs": by_name(connection, needs)}
    digest = json_digest(shown)
    lasts = min(one.expires_in for one in intent.decision.constraints.approvals)
    number = next_number(connection)
    connection.execute(
        insert(approvals).values(
            id=id,
            tenant_id=intent.job.tenant,
            job_id=intent.job.id,
            position=intent.position,
            action=intent.action,
            request_hash=intent.request_hash,
            policy_version=intent.decision.policy,
            principal_id=intent.principal,
            needs=needs,
            shown=shown,
            digest=digest,
            state=ApprovalState.OPEN,
            asked=number,
            created_at=now,
            expires_at=now + lasts,
        )
    )
    audit.record(
        connection,
        "approval.asked",
        intent.whom(),
        Work(job=intent.job.id, action=intent.action),
        id=f"{id}.asked",
        at=now,
        number=number,
        outcome="open",
        # The whole request: if nobody answers, an export of the audit has no other record of it.
        detail={
            "approval": id,
            "position": intent.position,
            "request_hash": intent.request_hash,
            "request_sha256": shown.get("request_sha256"),
            "digest": digest,
            "policy": intent.decision.policy,
            "needs": needs,
        },
    )
    return _wait(connection, intent, id, lasts)


def _wait(connection: Connection, intent: Intent, id: str, left: timedelta) -> Ended:
    reason = f"{intent.action} waits for approval {id}"
    parked = park(
        connection,
        intent.job,
        Wait.APPROVAL,
        waits_for=approval_of(id),
        due_in=left,
        expires_in=left,
        reason=reason,
        step=intent.unopened,
    )
    return Ended(reason=reason, moved=parked)


def confirm(connection: Connection, intent: Intent, *, now: datetime) -> bool:
    """True if the step's approval holds as it opens. Locks its row, so that it still holds at the commit.

    The caller holds the approvers' locks, shared. False: the approval must be requested again. A search needs none.
    """
    if not intent.decision.constraints.approvals:
        return True
    if intent.approval is None:
        return intent.purpose is Purpose.PROBE and intent.capability is None
    found = (
        select(approvals)
        .where(
            approvals.c.id == intent.approval.id,
            approvals.c.state == ApprovalState.APPROVED,
            approvals.c.job_id == intent.job.id,
            approvals.c.position == intent.position,
            approvals.c.request_hash == intent.request_hash,
            approvals.c.policy_version == intent.decision.policy,
            approvals.c.principal_id == intent.principal,
            approvals.c.asked > intent.job.accepted,
            or_(approvals.c.used_at.is_not(None), approvals.c.expires_at > now),
        )
        .with_for_update()
    )
    held = connection.execute(found).one_or_none()
    if held is None or (intent.purpose is Purpose.CALL and held.shown.get("request_sha256") != intent.request_sha256):
        return False
    return _still_approve(connection, held, intent.approval, now)


def _still_approve(connection: Connection, held: Row[Any], approved: Approved, now: datetime) -> bool:
    """True if all who said yes may still approve. If too few of them may, the approval is voided."""
    gone = barred(connection, held.job_id, approved.by)
    if is_met(held.needs, set(approved.by) - set(gone)):
        return not gone
    reason = "; ".join(f"{who}, who said yes, {why}" for who, why in sorted(gone.items())) or TOO_FEW
    move_approval(connection, held, ApprovalState.VOID, reason=reason, now=now)
    return False


def mark_used(connection: Connection, intent: Intent, *, now: datetime) -> None:
    """Mark the step's approval as used: from now on it does not expire, and serves only this step.

    Runs in the transaction that inserts the attempt. An opening that made none, for example because a person must
    connect first, uses nothing.
    """
    if intent.approval is None:
        return
    unused = (approvals.c.id == intent.approval.id) & approvals.c.used_at.is_(None)
    connection.execute(update(approvals).where(unused).values(used_at=now))


def said_yes(connection: Connection, held: Row[Any]) -> frozenset[str]:
    """Return who said yes and may still approve."""
    yes = select(approval_votes.c.principal_id).where(
        approval_votes.c.approval_id == held.id, approval_votes.c.answer == YES
    )
    said = connection.execute(yes).scalars().all()
    return frozenset(said) - set(barred(connection, held.job_id, said))


def move_approval(connection: Connection, held: Row[Any], to: ApprovalState, *, reason: str, now: datetime) -> bool:
    """Move one approval and record it in the audit. False: its state does not allow the move."""
    move = update(approvals).where(approvals.c.id == held.id, approvals.c.state.in_(APPROVAL_MOVES.sources(to)))
    if connection.execute(move.values(state=to, reason=reason, decided_at=now)).rowcount == 0:
        return False
    audit.record(
        connection,
        f"approval.{to}",
        AsWhom(tenant=held.tenant_id),
        Work(job=held.job_id, action=held.action),
        id=f"{held.id}.{to}",
        at=now,
        outcome=str(to),
        reason=reason,
        detail={"approval": held.id},
    )
    return True


def void_open(connection: Connection, tenant: str, *, reason: str, now: datetime) -> int:
    """Void all undecided approvals of a tenant and wake their jobs, which ask again. Return how many."""
    undecided = select(approvals).where(approvals.c.tenant_id == tenant, approvals.c.state == ApprovalState.OPEN)
    rows = connection.execute(undecided.order_by(approvals.c.id).with_for_update()).all()
    for held in rows:
        move_approval(connection, held, ApprovalState.VOID, reason=reason, now=now)
        wake(connection, approval_of(held.id))
    return len(rows)
