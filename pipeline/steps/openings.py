"""The opening transaction: commits the intent, under the locks and by the rule, before an attempt is sent."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from identity.accounts import leases
from identity.accounts.grants import note_use
from identity.accounts.scopes import revoked_since
from identity.accounts.states import pending_account
from identity.capability import issued
from identity.capability.verifier import Capability
from identity.connections.authorization import check_type
from identity.connections.registry import get_connection
from identity.errors import Misconfigured
from identity.model import AccessPattern, Leased, LeaseOutcome, NeedsConsent, NeedsRefresh
from identity.oauth.token_types import UNSUPPORTED
from identity.sql.columns import database_in_microseconds, microseconds
from identity.sql.prepared import Prepared
from identity.sql.sequence import NUMBERS, lock_shared, next_number
from pipeline.approvals.bars import approver_scopes
from pipeline.approvals.requested import confirm, mark_used
from pipeline.jobs.awaited import consent_of, has_come, upstream_of
from pipeline.jobs.calls import overtaken
from pipeline.jobs.claims import park
from pipeline.jobs.intents import (
    Adopted,
    ApprovalMoved,
    Ended,
    Intent,
    Opened,
    OpenOutcome,
    PolicyMoved,
    Skipped,
    claim_lost,
)
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.steps.before import PRESENT, done_before, go_on, look_again
from pipeline.steps.writing import record_intent, write_step
from pipeline.tables import attempts, jobs

# Every step runs these statements, so each is built once: building takes longer than running. Values are bound. The
# UPDATE that checks the fence also extends the claim past the call, so no heartbeat thread is needed. On PostgreSQL it
# also draws the ledger number; an opening that is refused wastes one, which is fine because numbers may have gaps.
_EXTEND_CLAIM = Prepared(
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("held"), jobs.c.state == JobState.RUNNING)
    .values(claimed_until=database_in_microseconds("longer"))
    .returning(*PRESENT)
)
_EXTEND_CLAIM_AND_NUMBER = Prepared(_EXTEND_CLAIM.statement.returning(NUMBERS.next_value().label("number")))
# Openings of a step exclude each other by the claim of its job.
_NEXT = select(func.coalesce(func.max(attempts.c.number), 0) + 1).where(attempts.c.step_id == bindparam("of_step"))
_INSERT_ATTEMPT = Prepared(insert(attempts).values(number=_NEXT.scalar_subquery()))


def open_attempt(connection: Connection, intent: Intent) -> OpenOutcome:
    """Open an attempt: locks, fence, the rule, the lease, the once key, then the intent with its number.

    Raises Misconfigured, and writes nothing, if an operator must act first.
    """
    if intent.decision.pattern is AccessPattern.CAPABILITY and intent.capability is None:
        # With an account's token the call would have its effect, but the ledger would record a capability.
        raise Misconfigured(f"step {intent.step} is to open by a capability, and none is wanted for it")
    job = intent.job
    lock_shared(connection, (*intent.lease.scope_list, *approver_scopes(intent.approval)))
    longer = microseconds(intent.claimed_for)
    gives_number = connection.dialect.name == "postgresql"
    extend = _EXTEND_CLAIM_AND_NUMBER if gives_number else _EXTEND_CLAIM
    named = {"tenant": job.tenant, "through": intent.connection}
    held = extend.run(connection, {"job": job.id, "held": job.fence, "longer": longer, **named}).one_or_none()
    if held is None:
        return claim_lost(connection, job)
    now: datetime = held.now
    outcome = go_on(connection, intent, held, partial(_examined, connection, intent, now))
    match outcome:
        case Ended() | PolicyMoved() | ApprovalMoved() | Skipped() | NeedsRefresh():
            return outcome
        case NeedsConsent():
            return _await_consent(connection, intent, outcome, now)
    # Checked before the commit: afterwards, each failure would use up an attempt and its approval.
    if outcome is not None and outcome.token_type.startswith(UNSUPPORTED):
        check_type(get_connection(connection, intent.connection), outcome.token_type)
    acted = intent.again and _is_overtaken(connection, intent, now)
    settled = done_before(connection, intent, now, overtaken=acted)
    if settled is not None:
        if isinstance(settled, Adopted):
            _end_wait(connection, intent)
        return settled
    capability = _issue_capability(connection, intent, now)
    if isinstance(capability, Ended):
        return capability
    if outcome is not None and outcome.first_use:
        note_use(connection, outcome.account, generation=outcome.generation, now=now)
    opened = held.number if gives_number else next_number(connection)
    if not write_step(connection, intent, StepState.OPEN, now):  # a late answer or a person has ended the step
        return look_again(connection, job, "its step has ended before it opened")
    _insert_attempt(connection, intent, outcome, capability, opened=opened, now=now)
    _end_wait(connection, intent)
    mark_used(connection, intent, now=now)
    return Opened(lease=outcome, capability=capability)


def _is_overtaken(connection: Connection, intent: Intent, now: datetime) -> bool:
    """True if an earlier call had the effect, or may have had it and repeating is not allowed."""
    forgotten = None if intent.repeats_for is None else now - intent.repeats_for
    by_unknown = not intent.repeats_unknown
    return overtaken(connection, intent.step, by_unknown=by_unknown, unknown_before=forgotten)


def _end_wait(connection: Connection, intent: Intent) -> None:
    """End the job's wait, because what it waited for has come; a later wait for the same thing starts afresh.

    Skips the step's own wait for its upstream: only an answer ends it (`close_attempt`).
    """
    if intent.job.waits_for not in (None, upstream_of(intent.step)):
        has_come(connection, intent.job)


def _examined(connection: Connection, intent: Intent, now: datetime) -> LeaseOutcome | ApprovalMoved | None:
    """Check the approval, then apply the rule. None: the step opens with a capability, which needs no account."""
    if not confirm(connection, intent, now=now):
        return ApprovalMoved()
    if intent.capability is None:
        return leases.examine(connection, intent.lease)
    return revoked_since(connection, intent.lease.scope_list, intent.lease.accepted)


def _issue_capability(connection: Connection, intent: Intent, now: datetime) -> Capability | Ended | None:
    """Issue the capability to send the call with.

    None: the call uses a leased token. Ended: the capability that was sent before is no longer valid.
    """
    if intent.capability is None:
        return None
    lives = partial(issued.living, connection, intent.step, at=now + intent.send_within)
    wanted = intent.capability
    if intent.resends and lives(accepted=wanted.accepted, approved_by=wanted.approved_by) is None:
        reason = "the capability that was sent expired, or lost its approval, before its outcome was known"
        return look_again(connection, intent.job, reason)
    return issued.issue(connection, wanted, now=now, use_within=intent.send_within)


def _insert_attempt(
    connection: Connection,
    intent: Intent,
    lease: Leased | None,
    capability: Capability | None,
    *,
    opened: int,
    now: datetime,
) -> None:
    """Insert the attempt's row and its audit record. *opened* is its ledger number."""
    _INSERT_ATTEMPT.run(
        connection,
        {
            "id": intent.attempt,
            "step_id": intent.step,
            "of_step": intent.step,
            "job_id": intent.job.id,
            "purpose": intent.purpose,
            "state": AttemptState.OPEN,
            "opened": opened,
            "tenant_id": intent.job.tenant,
            "connection_id": intent.connection,
            "agent_id": intent.job.agent,
            "principal_id": intent.principal,
            "account_id": lease.account if lease else "",
            "generation": lease.generation if lease else 0,
            "fence": intent.job.fence,
            "opened_at": now,
            "send_before": now + intent.send_within,
            "settled_by": now + intent.send_within + intent.deadline,
        },
    )
    by: dict[str, Any] = {"capability": capability.id} if capability else {}
    if lease:
        by["consented"] = lease.consented
    record_intent(
        connection,
        intent,
        "attempt.opened",
        id=f"{intent.attempt}.opened",
        at=now,
        number=opened,
        lease=lease,
        attempted=True,
        outcome="open",
        detail=by,
    )


def _await_consent(connection: Connection, intent: Intent, needs: NeedsConsent, now: datetime) -> Ended:
    """Park the job until the account's consent, whose commit takes the account's lock and wakes the job."""
    pending_account(connection, intent.lease.account_key, id=intent.new_account, provider=intent.provider, now=now)
    missing = f", scopes missing: {', '.join(needs.missing_scopes)}" if needs.missing_scopes else ""
    reason = f"{intent.action} needs the consent of {intent.principal}: the account is {needs.state}{missing}"
    key = consent_of(intent.lease.account_key)
    parked = park(
        connection,
        intent.job,
        Wait.CONSENT,
        waits_for=key,
        due_in=intent.consent_wait,
        expires_in=intent.consent_wait,
        reason=reason,
        lacks=needs.missing_scopes,
        step=intent.unopened,
    )
    record_intent(
        connection, intent, "job.parked", id=f"{intent.attempt}.parked", at=now, outcome="waiting", reason=reason
    )
    return Ended(reason=reason, moved=parked)
