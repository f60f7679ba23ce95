"""The demo's reads of the ledger, as rows to show and compare."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from identity.audit.chain import FirstBad
from identity.audit.handovers import trusted_keys
from identity.audit.tables import audit, audit_seals
from identity.audit.verification import verify
from identity.capability.tables import capabilities
from identity.model import Effect
from identity.refresh.intents import IntentState
from identity.refresh.tables import refresh_intents
from identity.tables import accounts
from pipeline.ledger.paging import Record, rows_of
from pipeline.revocation.tables import revocations
from pipeline.runtime import Runtime
from pipeline.states import JobState, StepState, Wait
from pipeline.tables import attempts, jobs, steps


class Sight:
    """Reads of one ledger."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def _all(self, statement: Any) -> list[Any]:
        return list(self._runtime.database.read(lambda c: c.execute(statement).all()))

    def steps(self) -> list[Record]:
        """Return every step, in closing order."""
        columns = (steps.c.id, steps.c.job_id, steps.c.action, steps.c.principal_id, steps.c.pattern, steps.c.reason)
        ordered = select(*columns, steps.c.state, steps.c.adopted_from).order_by(steps.c.closed_at, steps.c.opened_at)
        return [
            {
                "job": row.job_id,
                "step": row.id,
                "action": row.action,
                "principal": row.principal_id,
                "pattern": row.pattern,
                "reason": row.reason,
                "status": "adopted" if row.adopted_from and row.state == StepState.DONE else row.state,
            }
            for row in self._all(ordered)
        ]

    def jobs(self, *states: str) -> list[Record]:
        wanted = select(jobs).order_by(jobs.c.accepted)
        rows = self._all(wanted.where(jobs.c.state.in_(states)) if states else wanted)
        return [
            {
                "job": row.id,
                "workflow": row.workflow,
                "pattern": row.pattern,
                "user": row.user_id,
                "state": row.state,
                "reason": row.reason,
            }
            for row in rows
        ]

    def attempts(self) -> list[Record]:
        """Return every attempt, with its step's principal and pattern."""
        joined = select(attempts, steps.c.action, steps.c.pattern).join(steps, steps.c.id == attempts.c.step_id)
        return self._runtime.database.read(lambda c: rows_of(c, joined.order_by(attempts.c.opened)))

    def refreshes(self) -> list[Record]:
        """Return every token renewal, with its principal and outcome."""
        joined = select(refresh_intents, accounts.c.principal_id, accounts.c.provider, accounts.c.credential).join(
            accounts, accounts.c.id == refresh_intents.c.account_id
        )
        return [
            {
                "refresh": row.id,
                "provider": row.provider,
                "principal": row.principal_id,
                "credential": row.credential,
                "generation": row.generation,
                "outcome": "committed" if row.state == IntentState.COMMITTED else row.state,
                "presented": row.presented,
            }
            for row in self._all(joined.order_by(refresh_intents.c.opened))
        ]

    def receipt(self, revocation: str | None = None) -> Record | None:
        """Return a revocation's current receipt, or the newest revocation's. None if there is none yet."""
        newest = select(revocations.c.receipt).order_by(revocations.c.number.desc()).limit(1)
        (row,) = self._all(newest if revocation is None else newest.where(revocations.c.id == revocation)) or (None,)
        return None if row is None else row.receipt

    def awaited_approval(self) -> str | None:
        """Return the approval that a job waits for."""
        waiting = select(jobs.c.waits_for).where(jobs.c.state == JobState.WAITING, jobs.c.wait == Wait.APPROVAL)
        return next((row.waits_for.removeprefix("approval:") for row in self._all(waiting)), None)

    def approvers(self) -> list[str]:
        """Return the approvers named in the latest capability that needed approval."""
        approved = select(capabilities.c.approved_by).order_by(capabilities.c.issued_at.desc())
        return next((list(row.approved_by) for row in self._all(approved) if row.approved_by), [])

    def records(self) -> int:
        """Return the number of audit records."""
        (row,) = self._all(select(func.count()).select_from(audit))
        return int(row[0])

    def reads(self) -> frozenset[str]:
        """Return the read-only actions."""
        actions = self._runtime.workflows.actions
        return frozenset(name for name, action in actions.items() if action.facts.effect is Effect.READ)

    def sealed(self) -> bool:
        """True if every audit record is sealed."""
        unsealed = select(audit.c.id).outerjoin(audit_seals, audit_seals.c.audit_id == audit.c.id)
        return not self._all(unsealed.where(audit_seals.c.seq.is_(None)).limit(1))

    def audit_fault(self) -> str | None:
        """Return the first fault in the audit's chain, or None."""
        public = self._runtime.signer.public_key()
        keys = self._runtime.database.read(lambda c: trusted_keys(c, public))
        verified = verify(self._runtime.database, keys)
        return f"audit row {verified.seq}: {verified.why}" if isinstance(verified, FirstBad) else None
