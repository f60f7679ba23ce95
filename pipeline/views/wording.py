"""Wording about jobs, the same on pages, on the command line and in questions to approvers."""

from __future__ import annotations

from sqlalchemy import Connection, select

from identity.audit.tables import audit
from pipeline.authoring.declared_workflow import COMPENSATION
from pipeline.ledger.paging import Record
from pipeline.states import StepState

_NEWEST = 3  # replays that are told. A question in Slack has buttons only if all of it fits into 3,000 characters
_LONGEST_REASON = 120  # characters


def as_whom(step: Record) -> str:
    """Return whom a step ran as. A sleep has no principal."""
    if step["state"] == StepState.REFUSED or step["principal"] is None:
        return "nobody"
    if step["principal"] == step["kind"]:  # the service principal by that name, which every tenant has
        return f"the {step['kind']}"
    return f"{step['kind']} {step['principal']}"


def started_by(connection: Connection, job: Record) -> str:
    """Return who or what started a job, who replayed it or its delivery lately, and how many did before."""
    # Read from the audit: `jobs.replayed_by` also names people who asked for nothing, such as the maker of a key.
    acts = select(audit.c.kind, audit.c.reason).where(
        audit.c.job_id == job["id"], audit.c.kind.in_(("job.started", "job.replayed"))
    )
    started, replays = "", []
    for act in connection.execute(acts.order_by(audit.c.number)):
        reason = act.reason if len(act.reason) <= _LONGEST_REASON else f"{act.reason[:_LONGEST_REASON]}…"
        if act.kind == "job.replayed":
            replays.append(f"replayed {reason}")
        elif job["delivery_id"]:
            replays.append(f"its delivery replayed {reason}")
        else:
            started = f"an operator, {reason}"
    older = len(replays) - _NEWEST
    more = [f"replayed {older} more time{'s' * (older > 1)} before"] if older > 0 else []
    return "; ".join([started or _trigger(job), *more, *replays[-_NEWEST:]])


def _trigger(job: Record) -> str:
    if job["workflow"].endswith(COMPENSATION):
        return "a revocation, which wants compensated what another job did"
    if job["triggered_login"]:
        return f"{job['triggered_login']} ({job['triggered_by']})"
    if job["triggered_by"]:
        return str(job["triggered_by"])
    if job["request_id"]:
        return f"request {job['request_id']} of the agent"
    return "a delivery" if job["delivery_id"] else "a schedule, an operator, or what became of another job"
