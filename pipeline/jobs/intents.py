"""Intents: the input and the outcomes of an opening, and the rows that openings and refusals write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Unpack

from sqlalchemy import Connection, func

from identity import audit
from identity.audit import AsWhom, Work
from identity.capability.model import CapabilityRequest
from identity.capability.verifier import Capability
from identity.model import Leased, LeaseRequest, NeedsRefresh
from identity.policy.decision import Decision, Denied
from identity.policy.ledger import version_of
from identity.sql.columns import is_among
from identity.sql.prepared import Prepared
from identity.sql.rows import insert_for
from pipeline.jobs.claims import ClaimedJob, cancel_if_stopping, lock_claim
from pipeline.jobs.moves import StepColumns, move_step, step_sources
from pipeline.states import JobState, Purpose, StepState
from pipeline.tables import steps


@dataclass(frozen=True, kw_only=True)
class Approved:
    """An approval given for this very step, and its approvers."""

    id: str
    by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Intent:
    """Everything an opening needs, made before its transaction, which may run more than once."""

    step: str
    attempt: str
    job: ClaimedJob
    position: int
    action: str
    occurrence: int
    named: str
    decision: Decision | Denied
    principal: str | None  # None: no principal may do it
    provider: str
    connection: str
    api_url: str  # of the connection, as the run read it: the destination of the call
    new_account: str  # id for the pending account, if there is no account yet
    request_hash: str
    parameters: Mapping[str, Any]
    once: str | None
    purpose: Purpose
    lease: LeaseRequest  # the request; the lease itself is in `Opened`
    repeats_unknown: bool  # an unknown earlier attempt does not prohibit this one: a probe, or a mode that may repeat
    send_within: timedelta
    deadline: timedelta  # of the call, from its start
    consent_wait: timedelta  # time allowed for a person to connect the account first
    request_changed: bool = False  # since before the job was replayed, with nothing done
    reads: bool = False  # its calls have no effect, so none leaves anything in doubt
    again: bool = False  # the step had an attempt before
    approval: Approved | None = None
    request_sha256: str | None = None  # of the request to send, which an approval is bound to; None: nothing is sent
    may_skip: bool = False  # a revocation skips the step, and the job goes on
    capability: CapabilityRequest | None = None  # replaces a lease: no account is used
    # how long after a call of unknown outcome it may be repeated; None: without limit, given `repeats_unknown`
    repeats_for: timedelta | None = None
    resends: bool = False  # resends the still valid capability of an attempt of unknown outcome

    @property
    def unopened(self) -> dict[str, Any]:
        """The step as its job stores it while it waits to open."""
        return {
            "position": self.position,
            "action": self.action,
            "named": self.named,
            "principal_id": self.principal,
            "pattern": str(self.decision.pattern),
            "reason": self.decision.reason,
            "policy_version": self.decision.policy,
            "parameters": dict(self.parameters),
        }

    @property
    def claimed_for(self) -> timedelta:
        """Duration of the claim from the opening: past the call, with as much again for its close or a refresh."""
        return self.send_within + 2 * self.deadline


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A committed intent: the call may be sent until `send_within` has passed since before the commit."""

    lease: Leased | None  # None: our own capability takes its place
    capability: Capability | None = None


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """A step of job *owner* has already done this under the once key; its result is used."""

    owner: str
    result: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of the run. *moved*: the state this transaction moved the job to; None if another worker has it."""

    reason: str
    moved: JobState | None = None


@dataclass(frozen=True, kw_only=True)
class PolicyMoved:
    """The policy has changed since the decision, which must be taken again."""


@dataclass(frozen=True, kw_only=True)
class ApprovalMoved:
    """The approval no longer holds, or was never given, and must be requested again."""


@dataclass(frozen=True, kw_only=True)
class OnceMismatch:
    """The once key was used with other parameters by job *owner*. *done*: the id of that step, if it is done."""

    owner: str
    done: str | None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """The step's authority was revoked; the job goes on without it."""

    reason: str


OpenOutcome = Opened | Adopted | ApprovalMoved | Ended | OnceMismatch | PolicyMoved | Skipped | NeedsRefresh


def claim_lost(connection: Connection, job: ClaimedJob) -> Ended:
    """End a run that no longer has its job: the job was told to stop, or another worker has it."""
    stopped = cancel_if_stopping(connection, job)
    return Ended(reason="stopped" if stopped else "another worker has the job", moved=stopped)


def still_ours(connection: Connection, intent: Intent) -> Ended | PolicyMoved | None:
    """Lock the run's claim until the transaction ends, and check the policy that decided the step. None: both stand.

    An opening does the same in the one statement that extends the claim.
    """
    if not lock_claim(connection, intent.job):
        return claim_lost(connection, intent.job)
    return None if version_of(connection, intent.job.tenant) == intent.decision.policy else PolicyMoved()


def record_intent(
    connection: Connection,
    intent: Intent,
    kind: str,
    *,
    id: str,
    at: datetime,
    outcome: str,
    number: int | None = None,
    lease: Leased | None = None,
    capability: Capability | None = None,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write the audit record of a step's opening, its refusal or a search for its effect."""
    audit.record(
        connection,
        kind,
        AsWhom(
            tenant=intent.job.tenant,
            agent=intent.job.agent,
            principal=intent.principal,
            pattern=intent.decision.pattern,
            on_behalf_of=intent.job.user,
            account=lease.account if lease else None,
            generation=lease.generation if lease else None,
        ),
        Work(
            job=intent.job.id,
            step=intent.step,
            attempt=intent.attempt if lease or capability else None,
            action=intent.action,
        ),
        id=id,
        at=at,
        number=number,
        outcome=outcome,
        reason=reason or intent.decision.reason,
        detail={**_authority(intent), **({"capability": capability.id} if capability else {}), **(detail or {})},
    )


def _authority(intent: Intent) -> dict[str, Any]:
    """Return the authority of a step for its audit record: policy, rules, constraints and approval."""
    said: dict[str, Any] = {"policy": intent.decision.policy, "rules": list(intent.decision.rules)}
    held = intent.decision.constraints
    if held.max_amount is not None:
        said["max_amount"] = str(held.max_amount)
    if held.approvals:
        said["approvals"] = [{"rule": one.rule, "quorum": one.quorum} for one in held.approvals]
    if intent.approval is not None:
        said |= {"approval": intent.approval.id, "approved_by": list(intent.approval.by)}
    return said


# These change only in a job that was replayed before anything was done.
_ASKED = ("action", "occurrence", "named", "request_hash", "parameters", "once_key")


def write_step(
    connection: Connection, intent: Intent, state: StepState, now: datetime, **values: Unpack[StepColumns]
) -> bool:
    """Insert the step with this decision, or move the existing one to *state*. False: its state does not allow it.

    While a call has no outcome, the step's state forbids a refusal: it stays unknown, and the caller ends the job. A
    step that only reads is moved back to OPEN first.
    """
    if intent.reads and state is not StepState.OPEN:
        move_step(connection, intent.step, StepState.OPEN)
    row = {
        "id": intent.step,
        "job_id": intent.job.id,
        "position": intent.position,
        "action": intent.action,
        "occurrence": intent.occurrence,
        "named": intent.named,
        "principal_id": intent.principal,
        "pattern": intent.decision.pattern,
        "reason": intent.decision.reason,
        "policy_version": intent.decision.policy,
        "request_hash": intent.request_hash,
        "parameters": dict(intent.parameters),
        "once_key": intent.once,
        "state": state,
        "opened_at": now,
        **values,
    }
    columns = (*_ASKED, "principal_id", "pattern", "reason", "policy_version", "state", *values)
    if intent.request_changed:
        columns = (*columns, "opened_at")
    return _upsert(connection.dialect.name, state, columns).run(connection, row).rowcount == 1


@cache
def _upsert(dialect: str, to: StepState, again: tuple[str, ...]) -> Prepared:
    """Build the upsert of a step, which on conflict updates the columns *again*."""
    allowed = [*step_sources(to), *([to] if to is StepState.OPEN else [])]  # from OPEN to OPEN: a further attempt
    statement = insert_for(dialect, steps)
    newest = {column: statement.excluded[column] for column in again}
    # A later opening, by a newer workflow, may take a key. It is never released here, as it may be owned.
    newest["once_key"] = func.coalesce(statement.excluded.once_key, steps.c.once_key)
    found = is_among(steps.c.state, *allowed)
    return Prepared(statement.on_conflict_do_update(index_elements=["job_id", "position"], set_=newest, where=found))
