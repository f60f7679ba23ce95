"""Deletion of whole jobs and deliveries, if the settings ask for it: the row itself goes.

Only rows that can have no further consequences, and without which nothing that stays would answer differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import BigInteger, Connection, Select, delete, exists, func, literal, or_, select, type_coerce

from identity.retention import Bookmark, Looked, look
from identity.sql.columns import Instant, is_one
from pipeline.approvals.tables import approval_votes, approvals
from pipeline.authoring.declared_workflow import PLATFORM_AGENT
from pipeline.ledger.forgotten import DELIVERIES, JOBS, remember_forgotten
from pipeline.model import DeliveryOutcome
from pipeline.revocation.declaration import Stage
from pipeline.revocation.tables import revocations, signal_chunks
from pipeline.states import ApprovalState
from pipeline.tables import deliveries, idempotency_keys, jobs, steps


def look_at_whole_jobs(connection: Connection, *, before: datetime, after: Bookmark | None, limit: int) -> Looked:
    """Look at the next jobs created before a time, which include all that ended before it, and return which may go."""
    old = jobs.c.created_at < before
    may_go = _forgettable_jobs(before)
    return look(connection, jobs, old, may_go=may_go, after=after, limit=limit, by="created_at")


def prune_jobs(connection: Connection, *, before: datetime, ids: Sequence[str]) -> int:
    """Delete those of these jobs that may still go, with their approvals; return how many."""
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
    """Select the pruned jobs that ended before a time, with exceptions.

    Kept are: a job with a step, which may own a once key by which another job knows that the effect exists or was
    compensated; a job whose delivery has its body, as a replay of that would start the job again; the job of an
    idempotency key, as the same request would get no answer; a job that a revocation may still report, and any
    compensation, as receipts name how they ended; a job with an open approval, or one whose end was not announced.
    """
    has_step = exists().where(steps.c.job_id == jobs.c.id)
    comes_again = exists().where(deliveries.c.id == jobs.c.delivery_id, func.length(deliveries.c.body) > 0)
    stands_for_request = exists().where(idempotency_keys.c.made_id == jobs.c.id)
    # Applies to any unfinished revocation, not only the one that stopped the job: each names the jobs it reached, and
    # none of those ended before it began. The sum makes the planner use the index of unfinished revocations; with
    # the index on the times it would walk all rows if none is unfinished.
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
    """Look at the next deliveries received before a time, and return which may go."""
    old = deliveries.c.received_at < before
    may_go = _forgettable_deliveries(before)
    return look(connection, deliveries, old, may_go=may_go, after=after, limit=limit, by="received_at")


def prune_deliveries(connection: Connection, *, before: datetime, ids: Sequence[str]) -> int:
    """Delete those of these deliveries that may still go; return how many. A sender's id then counts as new again."""
    found = _forgettable_deliveries(before).where(deliveries.c.id.in_(ids)).with_for_update(skip_locked=True)
    gone = connection.execute(found).scalars().all()
    if gone:
        connection.execute(delete(deliveries).where(deliveries.c.id.in_(gone)))
        remember_forgotten(connection, DELIVERIES, before=before)
    return len(gone)


def _forgettable_deliveries(before: datetime) -> Select[str]:
    """Select the deliveries received before a time, except signals, which receipts name, and those of existing jobs.

    A signal that came again years later would withdraw what was given since.
    """
    started = exists().where(jobs.c.delivery_id == deliveries.c.id)
    reaching = exists().where(signal_chunks.c.delivery_id == deliveries.c.id)
    return select(deliveries.c.id).where(
        deliveries.c.received_at < before, deliveries.c.outcome != DeliveryOutcome.SIGNAL, ~started, ~reaching
    )
