"""Conditions that several ask by, in the words of their partial indexes (`identity.sql.columns.is_one`)."""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_, select

from identity.model import AccountState
from identity.sql.columns import is_among, is_one
from identity.tables import accounts
from identity.withdrawals import WithdrawalState
from identity.withdrawals.tables import withdrawals
from pipeline.model import DeliveryOutcome
from pipeline.states import ENDED, AttemptState, JobState, Purpose, Wait
from pipeline.tables import attempts, deliveries, jobs


def in_state(state: str) -> ColumnElement[bool]:
    """The jobs of a state. No more words than that: for PostgreSQL each of them makes fewer of the rows."""
    return is_one(jobs.c.state, JobState(state))


# What needs somebody.

#: The dead jobs that a person can still do something about: of the others retention has forgotten the steps.
REPLAYABLE = in_state(JobState.DEAD) & jobs.c.pruned_at.is_(None)
#: The calls whose outcome nobody knows.
OF_UNKNOWN_OUTCOME = is_one(attempts.c.state, AttemptState.UNKNOWN)
#: The calls that only a person's word settles: of jobs that wait for it, and of those that ended without it. Whatever
#: else is in doubt is looked for, or tried again, by its job.
UNANSWERED = (
    select(attempts.c.id, attempts.c.job_id)
    .join(jobs, jobs.c.id == attempts.c.job_id)
    .where(
        OF_UNKNOWN_OUTCOME,
        attempts.c.purpose == Purpose.CALL,
        or_(jobs.c.state.in_(sorted(ENDED)), (jobs.c.state == JobState.WAITING) & (jobs.c.wait == Wait.UNKNOWN)),
    )
)
#: The accounts that a person has to connect again, or a provider to let in.
TROUBLED = is_among(accounts.c.state, AccountState.NEEDS_RECONNECT, AccountState.SUSPENDED)
#: The deliveries that nobody could read, or that were another tenant's.
NOT_TAKEN = is_among(deliveries.c.outcome, DeliveryOutcome.UNRECOGNISED, DeliveryOutcome.REFUSED)
#: The revocations that a provider could not be asked to follow.
STUCK = select(withdrawals.c.revocation_id).where(is_one(withdrawals.c.state, WithdrawalState.STUCK))
