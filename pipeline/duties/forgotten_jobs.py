"""Jobs and deliveries that are forgotten whole, where the settings say so: the row itself goes.

Only what nothing can follow from any more, and what nothing that stays would answer otherwise without.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import BigInteger, Connection, Select, delete, exists, func, literal, or_, select, type_coerce

from identity.retention import Bookmark, Looked, look
from identity.sql.columns import Instant, is_one
from pipeline.approvals.tables import approval_votes, approvals
from pipeline.ledger.forgotten import DELIVERIES, JOBS, remember_forgotten
from pipeline.model import DeliveryOutcome
from pipeline.revocation import Stage
from pipeline.revocation.tables import revocations, signal_chunks
from pipeline.states import ApprovalState
from pipeline.tables import deliveries, idempotency_keys, jobs, steps
from pipeline.workflow import PLATFORM_AGENT


def look_at_whole_jobs(connection: Connection, *, before: datetime, after: Bookmark | None, limit: int) -> Looked:
    """Which of the next jobs that were made before then may go: those that ended before it are all among them."""
    old = jobs.c.created_at < before
    may_go = _forgettable_jobs(before)
    return look(connection, jobs, old, may_go=may_go, after=after, limit=limit, by="created_at")


def prune_jobs(connection: Connection, *, before: datetime, ids: Sequence[str]) -> int:
    """Delete those of these jobs that may go still, with what was asked of approvers for them; how many."""
    found = _forgettable_jobs(before).where(jobs.c.id.in_(ids)).with_for_update(skip_locked=True)
    gone = connection.execute(found).scalars().all()
    if gone:
        asked = select(approvals.c.id).where(approvals.c.job_id.in_(gone))
        connection.execute(delete(approval_votes).where(approval_votes.c.approval_id.in_(asked)))
        connection.execute(delete(approvals).where(approvals.c.job_id.in_(gone)))
        connection.execute(delete(jobs).where(jobs.c.id.in_(gone)))
        remember_forgotten(connection, JOBS, before=before)
    return len(gone)


def _forgettable_jobs(before: datetime) -> Select[str]:
    """Those that ended before then and are pruned, but for these.

    One with a step: that may own a once key, by which another job knows that its effect there was, or was compensated.
    One whose delivery has its body: a replay of that would start the job a second time. What an idempotency key stands
    for: the same request again would have no answer. One that a revocation may yet tell of, and what did a
    compensation: receipts name how it ended. One with an approval that is open, or whose end nobody was told of.
    """
    has_step = exists().where(steps.c.job_id == jobs.c.id)
    comes_again = exists().where(deliveries.c.id == jobs.c.delivery_id, func.length(deliveries.c.body) > 0)
    stands_for_request = exists().where(idempotency_keys.c.made_id == jobs.c.id)
    # Also of another than the one that stopped it: each names what it reached, and none of that ended before it began.
    # Of a sum, so that they are found by the index of those: by that of the times all are walked through, if none is.
    began = type_coerce(revocations.c.effective_at, BigInteger) + 0
    unfinished = select(func.min(began)).where(~is_one(revocations.c.state, Stage.QUIESCED))
    told_anew = exists().where(revocations.c.id == jobs.c.revocation_id, revocations.c.open_ends > 0)
    untold = or_(approvals.c.told_state.is_(None), approvals.c.told_state != approvals.c.state)
    asks = exists().where(approvals.c.job_id == jobs.c.id, (approvals.c.state == ApprovalState.OPEN) | untold)
    kept = (has_step, comes_again, stands_for_request, told_anew, asks)
    return select(jobs.c.id).where(
        jobs.c.finished_at < func.coalesce(unfinished.scalar_subquery(), literal(before, Instant)),
        jobs.c.finished_at < before,
        jobs.c.pruned_at.is_not(None),
        jobs.c.agent_id != PLATFORM_AGENT,
        *(~reason for reason in kept),
    )


def look_at_deliveries(connection: Connection, *, before: datetime, after: Bookmark | None, limit: int) -> Looked:
    """Which of the next deliveries that came before then may go."""
    old = deliveries.c.received_at < before
    may_go = _forgettable_deliveries(before)
    return look(connection, deliveries, old, may_go=may_go, after=after, limit=limit, by="received_at")


def prune_deliveries(connection: Connection, *, before: datetime, ids: Sequence[str]) -> int:
    """Delete those of these deliveries that may go still; how many. From here on the sender's id counts as new."""
    found = _forgettable_deliveries(before).where(deliveries.c.id.in_(ids)).with_for_update(skip_locked=True)
    gone = connection.execute(found).scalars().all()
    if gone:
        connection.execute(delete(deliveries).where(deliveries.c.id.in_(gone)))
        remember_forgotten(connection, DELIVERIES, before=before)
    return len(gone)


def _forgettable_deliveries(before: datetime) -> Select[str]:
    """Those that came before then, but for signals, which receipts name, and for those of jobs that there are.

    A signal that came again years later would withdraw what was given since.
    """
    started = exists().where(jobs.c.delivery_id == deliveries.c.id)
    reaching = exists().where(signal_chunks.c.delivery_id == deliveries.c.id)
    return select(deliveries.c.id).where(
        deliveries.c.received_at < before, deliveries.c.outcome != DeliveryOutcome.SIGNAL, ~started, ~reaching
    )
