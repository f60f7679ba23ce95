"""Revocation: one commit makes it effective, `advance` does the rest, and a signed receipt says what happened.

From the commit of `declare`, in ledger sequence, no step under the scope opens (identity.leases has the rule).
What follows is tidying: cancel what is queued, stop what runs, wait for the calls in flight, and write it all down.
`advance` is idempotent and resumes where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from identity import audit, leases
from identity.columns import database_now
from identity.errors import BadInput
from identity.model import Scope, ScopeKind
from identity.sequence import lock_exclusive, next_number
from identity.signing import Signer
from identity.store import Store
from pipeline import metrics
from pipeline.ledger import steps as ledger_steps
from pipeline.ledger.jobs import move_jobs
from pipeline.states import AttemptState, JobState
from pipeline.tables import attempts, job_scopes, jobs, revocations

CHUNK = 200  # jobs in one transaction: well below 20 ms on both databases


def declare(
    connection: Connection,
    *,
    id: str,
    scope: Scope,
    tenant: str | None,
    source: str,
    by: str,
    reason: str,
    now: datetime,
) -> int:
    """Make a revocation effective, in the caller's transaction. O(1), whatever is queued. Returns its ledger number."""
    lock_exclusive(connection, scope)
    number = next_number(connection)
    leases.revoke_scope(connection, scope, number, reason=reason, now=now)
    connection.execute(
        insert(revocations).values(
            id=id,
            number=number,
            kind=scope.kind,
            key=scope.key,
            tenant_id=tenant,
            source=source,
            requested_by=by,
            reason=reason,
            state="effective",
            effective_at=now,
            moved_at=now,
            cancelled_jobs=0,
            stopped_jobs=0,
        )
    )
    audit.record(
        connection,
        id=f"{id}.effective",
        at=now,
        number=number,
        kind="revocation.effective",
        tenant=tenant or "",
        outcome="effective",
        reason=reason,
        detail={"revocation": id, "scope": str(scope), "source": source, "by": by},
    )
    return number


class Revoker:
    """Carries revocations to their receipt; the `revocations` worker and housekeeping call the same `advance`."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer

    def advance(self, revocation: str) -> bool:
        """Do what can be done now. True: it is quiesced and has its receipt; False: calls are still in flight."""
        while (chunk := self._store.write(lambda c: _cancel_chunk(c, revocation))) is not None:
            for pattern in chunk.elements():
                metrics.count_end(pattern, JobState.CANCELLED)
        if not self._store.write(lambda c: _drained(c, revocation)):
            return False
        seconds = self._store.write(lambda c: _conclude(c, revocation, self._signer))
        if seconds is not None:
            metrics.REVOCATION_SECONDS.observe(seconds)
        return True

    def unfinished(self, *, idle_seconds: float) -> list[str]:
        """Revocations that have not moved for a while: lost bells, or calls that were in flight."""
        return self._store.read(lambda c: _unfinished(c, idle_seconds))


def _unfinished(connection: Connection, idle_seconds: float) -> list[str]:
    rows = connection.execute(
        select(revocations.c.id, revocations.c.moved_at, database_now().label("now")).where(
            revocations.c.state != "quiesced"
        )
    )
    return [row.id for row in rows if (row.now - row.moved_at).total_seconds() >= idle_seconds]


def load(connection: Connection, revocation: str) -> Row[Any]:
    """One revocation. Raises BadInput."""
    row = connection.execute(select(revocations).where(revocations.c.id == revocation)).one_or_none()
    if row is None:
        raise BadInput(f"there is no revocation {revocation}")
    return row


def _cancel_chunk(connection: Connection, revocation: str) -> Counter[str] | None:
    """Cancel or stop one chunk of the jobs accepted before it; how many it cancelled, by pattern. None: no more."""
    row = load(connection, revocation)
    if row.state not in ("effective", "cancelling"):
        return None
    reached = {
        JobState.QUEUED: JobState.CANCELLED,
        JobState.WAITING: JobState.CANCELLED,
        JobState.RUNNING: JobState.STOPPING,
    }
    found = connection.execute(
        select(jobs.c.id, jobs.c.state, jobs.c.pattern)
        .join(job_scopes, job_scopes.c.job_id == jobs.c.id)
        .where(
            job_scopes.c.kind == row.kind,
            job_scopes.c.key == row.key,
            jobs.c.accepted < row.number,
            jobs.c.state.in_(list(reached)),
        )
        .order_by(jobs.c.accepted)
        .limit(CHUNK)
        .with_for_update(
            of=jobs
        )  # in that order: two revocations of the same jobs do not wait for each other in a ring
    ).all()
    cancelled: Counter[str] = Counter()
    stopped = 0
    reason = f"{row.kind} revoked: {row.reason}"
    for source, to in reached.items():
        patterns = {job.id: job.pattern for job in found if job.state == source}
        if not patterns:
            continue
        moved = move_jobs(connection, list(patterns), to, source=source, reason=reason, revocation_id=revocation)
        if to is JobState.CANCELLED:
            cancelled.update(patterns[job] for job in moved)
        else:
            stopped += len(moved)
    connection.execute(
        update(revocations)
        .where(revocations.c.id == revocation)
        .values(
            state="cancelling" if found else "draining",
            moved_at=database_now(),
            cancelled_jobs=revocations.c.cancelled_jobs + cancelled.total(),
            stopped_jobs=revocations.c.stopped_jobs + stopped,
        )
    )
    return cancelled if found else None


def _in_flight(row: Row[Any]) -> Any:
    """Attempts opened under the scope before the revocation, and not closed before it or still unknown."""
    scope = Scope(kind=ScopeKind(row.kind), key=row.key)
    match scope.kind:
        case ScopeKind.TENANT:
            within = attempts.c.tenant_id == scope.key
        case ScopeKind.CONNECTION:
            within = attempts.c.connection_id == scope.key
        case ScopeKind.AGENT:
            within = attempts.c.agent_id == scope.key
        case ScopeKind.USER:
            within = attempts.c.principal_id == scope.key
        case ScopeKind.ACCOUNT:
            tenant, through, principal = scope.key.split("/", 2)
            within = (
                (attempts.c.tenant_id == tenant)
                & (attempts.c.connection_id == through)
                & (attempts.c.principal_id == principal)
            )
    still_out = or_(
        attempts.c.closed.is_(None), attempts.c.closed > row.number, attempts.c.state == AttemptState.UNKNOWN
    )
    return within & (attempts.c.opened < row.number) & still_out


def _drained(connection: Connection, revocation: str) -> bool:
    """Whether every call in flight has ended, or is presumed to have: its deadline has passed without an answer."""
    row = load(connection, revocation)
    if row.state != "draining":
        return True
    now: datetime = connection.execute(select(database_now())).scalar_one()
    still = 0
    for attempt in connection.execute(
        select(attempts).where(_in_flight(row), attempts.c.state == AttemptState.OPEN)
    ).all():
        if attempt.settled_by > now or not ledger_steps.settle(connection, attempt, now=now):
            still += 1
    running = connection.execute(
        select(jobs.c.id).where(jobs.c.revocation_id == revocation, jobs.c.state == JobState.STOPPING).limit(1)
    ).first()
    return not still and running is None


def _conclude(connection: Connection, revocation: str, signer: Signer) -> float | None:
    """Write the signed receipt. None: it was written before."""
    row = load(connection, revocation)
    if row.state == "quiesced":
        return None
    now: datetime = connection.execute(select(database_now())).scalar_one()
    receipt = _receipt(connection, row, now)
    connection.execute(
        update(revocations)
        .where(revocations.c.id == revocation)
        .values(state="quiesced", quiesced_at=now, moved_at=now, receipt=receipt, signature=signer.sign(receipt))
    )
    audit.record(
        connection,
        id=f"{revocation}.quiesced",
        at=now,
        kind="revocation.quiesced",
        tenant=row.tenant_id or "",
        outcome="quiesced",
        reason=row.reason,
        detail={
            "revocation": revocation,
            "cancelled_jobs": len(receipt["cancelled_jobs"]),
            "in_flight": len(receipt["in_flight"]),
        },
    )
    took: timedelta = now - row.effective_at
    return took.total_seconds()


def _receipt(connection: Connection, row: Row[Any], now: datetime) -> dict[str, Any]:
    touched = connection.execute(
        select(jobs.c.id, jobs.c.workflow, jobs.c.state).where(jobs.c.revocation_id == row.id).order_by(jobs.c.accepted)
    ).all()
    flying = connection.execute(select(attempts).where(_in_flight(row)).order_by(attempts.c.opened)).all()
    return {
        "revocation": row.id,
        "number": row.number,
        "scope": {"kind": row.kind, "key": row.key},
        "source": row.source,
        "requested_by": row.requested_by,
        "reason": row.reason,
        "effective_at": row.effective_at.isoformat(),
        "quiesced_at": now.isoformat(),
        "cancelled_jobs": [job.id for job in touched if job.state == JobState.CANCELLED],
        "finished_jobs": [job.id for job in touched if job.state == JobState.DONE],
        "in_flight": [_call_in_flight(attempt) for attempt in flying],
        "not_yet": ["compensations", "revocation at the provider"],
    }


def _call_in_flight(attempt: Row[Any]) -> Mapping[str, Any]:
    ended = attempt.closed is not None and attempt.state != AttemptState.UNKNOWN
    return {
        "attempt": attempt.id,
        "job": attempt.job_id,
        "step": attempt.step_id,
        "opened_at": attempt.opened_at.isoformat(),
        "ended": "ended" if ended else "presumed ended",
        "outcome": attempt.state,
    }
