"""Timeline of a job: what happened, as whom and why, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.ledger.paging import Record
from pipeline.states import JobState
from pipeline.views.wording import as_whom

#: Titles of the audit records that a job's steps and attempts do not already show.
_RECORDS: Mapping[str, str] = {
    "tool.requested": "An agent asked for it",
    "job.parked": "It began to wait",
    "job.cancelled": "A person cancelled it",
    "job.replayed": "A person had it accepted anew",
    "step.adopted": "Another job had done it already",
    "attempt.resolved": "What became of a call was said",
    "attempt.late": "An answer came late",
    "attempt.duplicate_effect": "What was learned late says that the effect may have happened twice",
    "compensation.accepted": "It is compensated",
    "compensation.refused": "It is not compensated",
    "approval.asked": "An approval was asked for",
    "approval.answered": "An approver answered",
    "approval.approved": "It was approved",
    "approval.denied": "It was denied",
    "approval.expired": "Nobody answered in time",
    "approval.void": "The approval was void, and is asked for anew",
    "account.connected": "The account was connected",
}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One event of a timeline. *step*: the step's row, if it is a step."""

    at: datetime
    kind: str  # accepted, step, record, end
    title: str
    detail: str = ""
    step: Record | None = None
    whom: str = ""


def timeline(job: Record, started_by: str, records: Sequence[Record], compensations: Sequence[Record]) -> list[Moment]:
    """Return everything about *job*, oldest first."""
    moments = [
        _accepted(job, started_by),
        *map(_step, job["steps"]),
        *_record_moments(records),
        *_compensated(compensations),
        *_now(job),
    ]
    return sorted(moments, key=lambda moment: moment.at)


def _accepted(job: Record, started_by: str) -> Moment:
    meant = f"; the user it means is {job['user_id']}" if job["user_id"] else ""
    detail = f"Started by {started_by}, for agent {job['agent_id']}{meant}"
    return Moment(at=job["created_at"], kind="accepted", title="Accepted", detail=detail)


def _step(step: Record) -> Moment:
    return Moment(at=step["opened_at"], kind="step", title=step["action"], step=step, whom=as_whom(step))


def _record_moments(records: Sequence[Record]) -> Iterator[Moment]:
    for row in records:
        if title := _RECORDS.get(row["kind"]):
            told = (row["reason"], row["detail"].get("approval"))
            yield Moment(at=row["at"], kind="record", title=title, detail=", ".join(filter(None, told)))


def _compensated(compensations: Sequence[Record]) -> Iterator[Moment]:
    for one in compensations:
        said = f"by {one['job_id']}, which is {one['by_state']}" if one["job_id"] else f"not: {one['reason']}"
        title = f"Compensation of step {one['position']}"
        yield Moment(at=one["created_at"], kind="record", title=title, detail=said)


def _now(job: Record) -> Iterator[Moment]:
    if job["finished_at"] is not None:
        why = job["reason"] if job["state"] != JobState.DONE else ""
        yield Moment(at=job["finished_at"], kind="end", title=str(job["state"]).capitalize(), detail=why or "")
