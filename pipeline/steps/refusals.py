"""Refusals: record a step's end, so that no further attempt at it is made.

Policy, an approval and a once key refuse before the opening, and the workflow is told. The rule refuses in the opening,
and ends the run.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from identity.model import RuledOut, ScopeKind
from identity.policy.decision import Denied
from pipeline.jobs.calls import give_way, is_done, overtaken, word_wanted
from pipeline.jobs.claims import bury
from pipeline.jobs.intents import Ended, Intent, PolicyMoved, Skipped, still_ours
from pipeline.jobs.moves import move_job
from pipeline.ledger.clock import ledger_now
from pipeline.revocation.declaration import newest_of
from pipeline.revocation.pages import write_refused
from pipeline.revocation.tables import revocations
from pipeline.states import JobState, StepState
from pipeline.steps.writing import record_intent, write_step


def refuse(
    connection: Connection, intent: Intent, *, reason: str, once_of: str | None = None
) -> Ended | PolicyMoved | None:
    """Refuse a step by policy, or because its once key belongs to the step *once_of*: recorded, never sent (None).

    PolicyMoved: the policy has changed, so nothing is done. Ended: a call of the step had or may have had its effect,
    so nothing may go on as if it were refused: the job looks again, or is dead if nobody knows. Also Ended if the run
    has lost its job.
    """
    if (moved := still_ours(connection, intent)) is not None:
        return moved
    if overtaken(connection, intent.step, by_unknown=False):
        return give_way(connection, intent)
    denied = Denied(reason=reason, policy=intent.decision.policy, rules=intent.decision.rules)
    nobody = replace(intent, principal=None, decision=denied)
    now = ledger_now(connection)
    if overtaken(connection, intent.step, by_unknown=not intent.reads):
        return _give_up(connection, nobody, reason, now)
    _write(connection, nobody, reason, now, once_of=once_of)
    return None


def rule_out(connection: Connection, intent: Intent, ruled: RuledOut, now: datetime) -> Ended | Skipped:
    """End the run after the rule refused a step, unless the job may skip the step or continue with its result."""
    may_go_on = intent.may_skip and ruled.scope.kind not in (ScopeKind.TENANT, ScopeKind.AGENT)
    done = is_done(connection, intent.step)
    if may_go_on and done:
        return give_way(connection, intent)
    if may_go_on and not overtaken(connection, intent.step, by_unknown=not intent.reads):
        return _skip(connection, intent, ruled.reason, now)
    if not done:
        _write(connection, intent, ruled.reason, now)
    # The revocation that refused it, by its number: a stopped scope may have been revoked before the job was accepted.
    since = newest_of(ruled.scope).where(revocations.c.number >= intent.job.accepted)
    revocation = connection.execute(since.with_only_columns(revocations.c.id)).scalar_one_or_none()
    cancelled = move_job(
        connection,
        intent.job.id,
        JobState.CANCELLED,
        fence=intent.job.fence,
        reason=ruled.reason,
        revocation_id=revocation,
    )
    if cancelled and revocation is not None:
        # The receipt lists the job, whether this refusal or the revocation's own pass over its jobs comes first.
        write_refused(connection, revocation, intent.job.id)
    return Ended(reason=ruled.reason, moved=JobState.CANCELLED if cancelled else None)


def _skip(connection: Connection, intent: Intent, why: str, now: datetime) -> Skipped:
    write_step(connection, intent, StepState.SKIPPED, now, error=why, closed_at=now)
    record_intent(
        connection, intent, "step.skipped", id=f"{intent.attempt}.skipped", at=now, outcome="skipped", reason=why
    )
    return Skipped(reason=why)


def _give_up(connection: Connection, intent: Intent, why: str, now: datetime) -> Ended:
    """Bury the job: no attempt may follow one of unknown outcome, and only a person can settle it."""
    wanted = word_wanted(intent.provider)
    reason = f"StepRefused: {why}; {intent.action} was sent before and no answer came: {wanted}"
    moved = bury(connection, intent.job, reason=reason)
    _write(connection, intent, why, now)
    return Ended(reason=reason, moved=moved)


def _write(connection: Connection, intent: Intent, why: str, now: datetime, *, once_of: str | None = None) -> None:
    """Refuse the step. A call sent without an answer stays unknown; only further attempts are prevented."""
    refused = write_step(connection, intent, StepState.REFUSED, now, error=why, closed_at=now, adopted_from=once_of)
    kind, outcome = ("step.refused", "refused") if refused else ("step.given_up", "unknown")
    record_intent(connection, intent, kind, id=f"{intent.attempt}.refused", at=now, outcome=outcome, reason=why)
