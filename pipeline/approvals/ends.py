"""Ends of approvals: decided by people, or over because time ran out or the job no longer asks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, not_, or_, select

from identity.policy.ledger import version_of
from identity.sql.columns import is_one
from pipeline.approvals.requested import approval_of, move_approval
from pipeline.approvals.tables import approvals
from pipeline.jobs.awaited import wake
from pipeline.ledger.clock import NOW, ledger_now
from pipeline.states import ENDED, ApprovalState, StepState
from pipeline.tables import jobs, steps


def end(connection: Connection, held: Row[Any], to: ApprovalState, reason: str, now: datetime) -> ApprovalState:
    """Move an approval to its end, and wake the job in the same commit."""
    move_approval(connection, held, to, reason=reason, now=now)
    wake(connection, approval_of(held.id))
    return to


def end_if_over(connection: Connection, held: Row[Any], now: datetime) -> str | None:
    """End an approval that is over by itself. Return why it takes no more answers, or None if it does.

    The caller has *held* locked.
    """
    if held.state != ApprovalState.OPEN:
        return f"approval {held.id} is {held.state} already" + (f": {held.reason}" if held.reason else "")
    job = connection.execute(select(jobs.c.state, jobs.c.accepted).where(jobs.c.id == held.job_id)).one()
    if job.state in ENDED or job.accepted > held.asked:
        which = "has ended" if job.state in ENDED else "was replayed and will ask again"
        move_approval(connection, held, ApprovalState.VOID, reason=f"its job {which}", now=now)
        return f"the job of approval {held.id} {which}"
    if held.expires_at <= ledger_now(connection):
        end(connection, held, ApprovalState.EXPIRED, "nobody answered in time", now)
        return f"approval {held.id} has expired"
    if version_of(connection, held.tenant_id) != held.policy_version:
        end(connection, held, ApprovalState.VOID, "the tenant's policy changed", now)
        return f"the tenant's policy changed since approval {held.id} was asked for: it is asked for anew"
    return None


_OPEN = is_one(approvals.c.state, ApprovalState.OPEN)
_LATE = approvals.c.expires_at <= NOW
_UNWANTED = or_(jobs.c.state.in_(ENDED), jobs.c.accepted > approvals.c.asked)
# A step that another job's result settled, or that came to nothing, asks again only after a replay of its job.
_SETTLED = exists().where(
    steps.c.job_id == approvals.c.job_id,
    steps.c.position == approvals.c.position,
    steps.c.state.not_in((StepState.OPEN, StepState.UNKNOWN)),
)
WANTED = and_(not_(_UNWANTED), not_(_SETTLED))  # its step will ask for it again
WITH_JOBS = approvals.join(jobs, jobs.c.id == approvals.c.job_id)


def some_are_over(connection: Connection) -> bool:
    """True if `end_some` would find any.

    Called often, so two queries: late approvals have an index, and jobs are joined only for open ones.
    """
    late = select(approvals.c.id).where(_OPEN, _LATE).limit(1)
    unwanted = select(approvals.c.id).select_from(WITH_JOBS).where(_OPEN, _UNWANTED).limit(1)
    return any(connection.execute(found).first() is not None for found in (late, unwanted))


def end_some(connection: Connection, *, at_most: int) -> int:
    """End up to *at_most* open approvals whose time or job is over; return how many ended."""
    found = select(approvals).select_from(WITH_JOBS).where(_OPEN, or_(_LATE, _UNWANTED))
    found = found.order_by(approvals.c.created_at, approvals.c.id).limit(at_most)
    # Skip locked rows: the transaction that answers or runs one of these ends it.
    rows = connection.execute(found.with_for_update(of=approvals, skip_locked=True)).all()
    now = ledger_now(connection)
    return sum(end_if_over(connection, held, now) is not None for held in rows)
