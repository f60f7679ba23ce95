"""Shared conditions, worded as their partial indexes (`identity.sql.columns.is_one`)."""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_, select

from identity.model import AccountState
from identity.sql.columns import is_among, is_one
from identity.tables import accounts
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import WithdrawalState
from pipeline.model import DeliveryOutcome
from pipeline.states import ENDED, AttemptState, JobState, Purpose, Wait
from pipeline.tables import attempts, deliveries, jobs


def in_state(state: str) -> ColumnElement[bool]:
    """Match the jobs in a state. Nothing more: PostgreSQL lowers its row estimate with each further condition."""
    return is_one(jobs.c.state, JobState(state))


# Rows that need a person.

#: Dead jobs that can still be replayed; of the others, retention has removed the steps.
REPLAYABLE = in_state(JobState.DEAD) & jobs.c.pruned_at.is_(None)
#: Calls of unknown outcome.
OF_UNKNOWN_OUTCOME = is_one(attempts.c.state, AttemptState.UNKNOWN)
#: Calls that only a person can settle: of jobs that wait for that, and of jobs that ended without it. Other calls in
#: doubt are searched for or tried again by their jobs.
UNANSWERED = (
    select(attempts.c.id, attempts.c.job_id)
    .join(jobs, jobs.c.id == attempts.c.job_id)
    .where(
        OF_UNKNOWN_OUTCOME,
        attempts.c.purpose == Purpose.CALL,
        or_(jobs.c.state.in_(sorted(ENDED)), (jobs.c.state == JobState.WAITING) & (jobs.c.wait == Wait.UNKNOWN)),
    )
)
#: Accounts that a person must connect again, or that a provider suspended.
TROUBLED = is_among(accounts.c.state, AccountState.NEEDS_RECONNECT, AccountState.SUSPENDED)
#: Deliveries that were unrecognised, or another tenant's.
NOT_TAKEN = is_among(deliveries.c.outcome, DeliveryOutcome.UNRECOGNISED, DeliveryOutcome.REFUSED)
#: Revocations that a provider could not be asked to follow.
STUCK = select(withdrawals.c.revocation_id).where(is_one(withdrawals.c.state, WithdrawalState.STUCK))
