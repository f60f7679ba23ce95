"""The opening transaction: an attempt is sent only after its intent is committed, under the locks and by the rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, exists, insert, select, update

from identity import leases
from identity.accounts import pending_account
from identity.capability import issued
from identity.capability.verifier import Capability
from identity.columns import database_in_microseconds, database_now, microseconds
from identity.connections import is_there
from identity.errors import Misconfigured
from identity.grants import note_use
from identity.model import AccessPattern, Leased, LeaseOutcome, NeedsConsent, NeedsRefresh, RuledOut, ScopeKind
from identity.policy.ledger import current_version, version_of
from identity.round_trips import sent_together
from identity.scopes import revoked_since
from identity.sequence import NUMBERS, lock_shared, next_number
from pipeline.ledger.approval_bars import approver_scopes
from pipeline.ledger.approvals import confirm, mark_used
from pipeline.ledger.intents import (
    ApprovalMoved,
    Ended,
    Intent,
    Opened,
    OpenOutcome,
    PolicyMoved,
    Skipped,
    record,
    write_step,
)
from pipeline.ledger.jobs import bury, cancel_if_stopping, consent_of, park, requeue
from pipeline.ledger.moving import StepColumns, move_job
from pipeline.ledger.once import take_once
from pipeline.ledger.revocation_pages import write_refused
from pipeline.ledger.steps import clock
from pipeline.revocation.tables import revocations
from pipeline.states import AttemptState, JobState, Purpose, StepState, Wait
from pipeline.tables import attempts, jobs, steps

# Statements of every step are built once: building them anew takes longer than the database does. Values are arguments.
# Extends the claim past the call, in the UPDATE that checks the fence: no heartbeat thread. PostgreSQL gives the
# ledger number by the way: an opening that ends otherwise burns one, and numbers may have gaps.
_HOLD = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("held"), jobs.c.state == JobState.RUNNING)
    .values(claimed_until=database_in_microseconds("longer"))
    .returning(database_now().label("now"), current_version().label("policy"))
)
_HOLD_AND_NUMBER = _HOLD.returning(NUMBERS.next_value().label("number"))
_INSERT_ATTEMPT = insert(attempts)


def open_attempt(connection: Connection, intent: Intent) -> OpenOutcome:
    """The opening transaction: locks, fence, the rule, the lease, the once key, then the intent with its number."""
    if intent.decision.pattern is AccessPattern.CAPABILITY and intent.capability is None:
        # By an account's token it would do what was decided, but not as the ledger would say.
        raise Misconfigured(f"step {intent.step} is to open by a capability, and none is wanted for it")
    job = intent.job
    lock_shared(connection, (*intent.lease.scope_list, *approver_scopes(intent.approval)))
    longer = microseconds(intent.claimed_for)
    gives_number = connection.dialect.name == "postgresql"
    held = connection.execute(
        _HOLD_AND_NUMBER if gives_number else _HOLD,
        {"job": job.id, "held": job.fence, "longer": longer, "tenant": job.tenant},
    ).one_or_none()
    if held is None:
        stopped = cancel_if_stopping(connection, job)
        return Ended(reason="stopped" if stopped else "another worker has the job", moved=stopped)
    now: datetime = held.now
    if held.policy != intent.decision.policy:
        return PolicyMoved()
    if not confirm(connection, intent, now=now):
        return ApprovalMoved()

    outcome = _examined(connection, intent)
    match outcome:
        case RuledOut():
            return _ruled_out(connection, intent, outcome, now)
        # The run has read it before. What is of an account is of a connection that stays, by its key.
        case NeedsConsent() | None if not is_there(connection, intent.connection):
            reason = f"provider connection {intent.connection} was removed: it looks again"
            return Ended(reason=reason, moved=requeue(connection, job, delay=timedelta(), reason=reason))
        case NeedsConsent():
            return _await_consent(connection, intent, outcome, now)
        case NeedsRefresh():
            return outcome
    if intent.number > 1 and _overtaken(connection, intent):
        return _give_way(connection, intent)
    if intent.once is not None and intent.purpose is Purpose.CALL:
        settled = take_once(connection, intent, now)
        if settled is not None:
            return settled
    capability = _issue_capability(connection, intent, now)
    if isinstance(capability, Ended):
        return capability
    if outcome is not None and outcome.first_use:
        note_use(connection, outcome.account, generation=outcome.generation, now=now)
    opened = held.number if gives_number else next_number(connection)
    with sent_together(connection):
        write_step(connection, intent, StepState.OPEN, now)
        _insert_attempt(connection, intent, outcome, opened=opened, now=now)
        record(
            connection,
            intent,
            "attempt.opened",
            id=f"{intent.attempt}.opened",
            at=now,
            number=opened,
            outcome="open",
            lease=outcome,
            detail={"consented": outcome.consented} if outcome else {},
            capability=capability,
        )
        mark_used(connection, intent, now=now)
    return Opened(lease=outcome, capability=capability)


def _examined(connection: Connection, intent: Intent) -> LeaseOutcome | None:
    """What the rule says; None: it lets the step open, and a capability needs no account."""
    if intent.capability is None:
        return leases.examine(connection, intent.lease)
    return revoked_since(connection, intent.lease.scope_list, intent.lease.accepted)


def _issue_capability(connection: Connection, intent: Intent, now: datetime) -> Capability | Ended | None:
    """The capability that the call is sent by; None: it goes by a lease. Ended: the one that was sent is gone."""
    if intent.capability is None:
        return None
    alive_at = now + intent.send_within
    by = intent.capability.approved_by
    if intent.resends and issued.living(connection, intent.step, at=alive_at, approved_by=by) is None:
        reason = "the capability that was sent expired, or lost its approval, before its outcome was known"
        return Ended(reason=reason, moved=requeue(connection, intent.job, delay=timedelta(), reason=reason))
    return issued.issue(connection, intent.capability, now=now, use_within=intent.send_within)


def _insert_attempt(
    connection: Connection, intent: Intent, lease: Leased | None, *, opened: int, now: datetime
) -> None:
    """Insert the intent, by whose row the call is known from here on; *opened* is its number in the ledger."""
    connection.execute(
        _INSERT_ATTEMPT,
        {
            "id": intent.attempt,
            "step_id": intent.step,
            "job_id": intent.job.id,
            "number": intent.number,
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


def _overtaken(connection: Connection, intent: Intent) -> bool:
    """Whether an earlier attempt has, or may yet have, the effect that this one is for."""
    settled = [AttemptState.NO_EFFECT, *([AttemptState.UNKNOWN] if intent.repeats_unknown else [])]
    other = exists().where(
        attempts.c.step_id == intent.step, attempts.c.purpose == Purpose.CALL, attempts.c.state.not_in(settled)
    )
    # Where a search found the effect of a call that had been ruled out, only the step tells.
    found = exists().where(steps.c.id == intent.step, steps.c.state == StepState.DONE)
    return bool(connection.execute(select(other | found)).scalar_one())


def _give_way(connection: Connection, intent: Intent) -> Ended:
    """An earlier attempt comes first: the job looks again, at once where its result is there, else when it may be."""
    result = exists().where(steps.c.id == intent.step, steps.c.state == StepState.DONE)
    if connection.execute(select(result)).scalar_one():
        delay, reason = timedelta(), "an earlier attempt was answered late"
    elif _had_effect(connection, intent):  # until late answers were kept, one could leave no result behind
        reason = "an earlier attempt had its effect, and its result was not kept"
        return Ended(reason=reason, moved=bury(connection, intent.job, reason=reason))
    else:
        delay, reason = intent.send_within + intent.deadline, "an earlier attempt may yet be answered"
    return Ended(reason=reason, moved=requeue(connection, intent.job, delay=delay, reason=reason))


def _had_effect(connection: Connection, intent: Intent) -> bool:
    known = [AttemptState.EFFECT, AttemptState.ADOPTED]
    effect = exists().where(
        attempts.c.step_id == intent.step, attempts.c.purpose == Purpose.CALL, attempts.c.state.in_(known)
    )
    return bool(connection.execute(select(effect)).scalar_one())


def _ruled_out(connection: Connection, intent: Intent, ruled: RuledOut, now: datetime) -> Ended | Skipped:
    """The rule refused the step: it ends the run like a stop, unless the job may go on without it."""
    if _may_skip(connection, intent, ruled):
        write_step(connection, intent, StepState.SKIPPED, now, error=ruled.reason, closed_at=now)
        record(
            connection,
            intent,
            "step.skipped",
            id=f"{intent.attempt}.skipped",
            at=now,
            outcome="skipped",
            reason=ruled.reason,
        )
        return Skipped(reason=ruled.reason)
    _write_refusal(connection, intent, ruled.reason, now)
    # The receipt lists it, whichever comes first: this refusal or the revocation's own look at its jobs.
    newest = (
        select(revocations.c.id)
        .where(revocations.c.kind == ruled.scope.kind, revocations.c.key == ruled.scope.key)
        .order_by(revocations.c.number.desc())
        .limit(1)
    )
    revocation = connection.execute(newest).scalar_one_or_none()
    cancelled = move_job(
        connection,
        intent.job.id,
        JobState.CANCELLED,
        fence=intent.job.fence,
        reason=ruled.reason,
        revocation_id=revocation,
    )
    if cancelled and revocation is not None:
        write_refused(connection, revocation, intent.job.id)
    return Ended(reason=ruled.reason, moved=JobState.CANCELLED if cancelled else None)


def _may_skip(connection: Connection, intent: Intent, ruled: RuledOut) -> bool:
    """Whether the workflow says so, something is left to go on as, and no earlier attempt may have had the effect."""
    if not intent.may_skip or ruled.scope.kind in (ScopeKind.TENANT, ScopeKind.AGENT):
        return False
    return not _overtaken(connection, replace(intent, repeats_unknown=intent.reads))


def _await_consent(connection: Connection, intent: Intent, needs: NeedsConsent, now: datetime) -> Ended:
    """Park at the step that needs a person; the callback's commit takes the account's lock and wakes the job."""
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
    )
    record(connection, intent, "job.parked", id=f"{intent.attempt}.parked", at=now, outcome="waiting", reason=reason)
    return Ended(reason=reason, moved=parked)


def refuse(
    connection: Connection, intent: Intent, *, reason: str, once_of: str | None = None
) -> Ended | PolicyMoved | None:
    """A step that policy refuses, or whose once key is that of the step *once_of*: recorded, never sent (None).

    PolicyMoved: by a policy that holds no longer, so nothing is done. Ended: a call of the step had its effect or may
    have had it, so that nothing may go on as if it were refused: the job looks again, or is dead where nobody knows.
    """
    if version_of(connection, intent.job.tenant) != intent.decision.policy:
        return PolicyMoved()
    if _overtaken(connection, replace(intent, repeats_unknown=True)):
        return _give_way(connection, intent)
    nobody = replace(intent, principal=None)
    now = clock(connection)
    if _overtaken(connection, replace(intent, repeats_unknown=intent.reads)):
        return _give_up(connection, nobody, reason, now)
    whose: StepColumns = {"pattern": None, "reason": reason, "adopted_from": once_of}
    _write_refusal(connection, nobody, reason, now, beside=whose)
    return None


def _give_up(connection: Connection, intent: Intent, why: str, now: datetime) -> Ended:
    """No further attempt is made after one whose outcome is not known, so a person's word is all that can tell it."""
    reason = (
        f"StepRefused: {why}; {intent.action} was sent before and no answer came: look at {intent.provider}, then say "
        f"what became of it, as `aswhom jobs show {intent.job.id}` tells how"
    )
    moved = bury(connection, intent.job, reason=reason)
    _write_refusal(connection, intent, why, now)
    return Ended(reason=reason, moved=moved)


def _write_refusal(
    connection: Connection, intent: Intent, why: str, now: datetime, *, beside: StepColumns | None = None
) -> None:
    """Refuse the step; what was sent without an answer stays unknown, and only no further attempt is made."""
    columns: StepColumns = {**(beside or {}), "error": why, "closed_at": now}
    refused = write_step(connection, intent, StepState.REFUSED, now, **columns)
    kind, outcome = ("step.refused", "refused") if refused else ("step.given_up", "unknown")
    record(connection, intent, kind, id=f"{intent.attempt}.refused", at=now, outcome=outcome, reason=why)
