"""Intents: the input and the outcomes of an opening."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from identity.audit import AsWhom, Work
from identity.capability.model import CapabilityRequest
from identity.capability.verifier import Capability
from identity.model import Leased, LeaseRequest, NeedsRefresh
from identity.policy.decision import Decision, Denied
from identity.policy.ledger import version_of
from pipeline.jobs.claims import ClaimedJob, cancel_if_stopping, lock_claim
from pipeline.states import JobState, Purpose


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

    def whom(self, lease: Leased | None = None) -> AsWhom:
        """Return the parties of an audit record: as whom the step is done, and by which *lease* if it has one."""
        return AsWhom(
            tenant=self.job.tenant,
            agent=self.job.agent,
            principal=self.principal,
            pattern=self.decision.pattern,
            on_behalf_of=self.job.user,
            account=lease.account if lease else None,
            generation=lease.generation if lease else None,
        )

    def work(self, *, attempted: bool = False) -> Work:
        """Return the work of an audit record. *attempted*: it is about this attempt, rather than the step."""
        attempt = self.attempt if attempted else None
        return Work(job=self.job.id, step=self.step, attempt=attempt, action=self.action)

    @property
    def authority(self) -> dict[str, Any]:
        """The detail of an audit record: the policy, rules, constraints and approval of the step."""
        said: dict[str, Any] = {"policy": self.decision.policy, "rules": list(self.decision.rules)}
        held = self.decision.constraints
        if held.max_amount is not None:
            said["max_amount"] = str(held.max_amount)
        if held.approvals:
            said["approvals"] = [{"rule": one.rule, "quorum": one.quorum} for one in held.approvals]
        if self.approval is not None:
            said |= {"approval": self.approval.id, "approved_by": list(self.approval.by)}
        return said


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
