"""Wording about jobs, the same on pages, on the command line and in questions to approvers."""

from __future__ import annotations

from pipeline.authoring.declared_workflow import COMPENSATION
from pipeline.ledger.paging import Record
from pipeline.states import StepState


def as_whom(step: Record) -> str:
    """Return whom a step ran as. A sleep has no principal."""
    if step["state"] == StepState.REFUSED or step["principal"] is None:
        return "nobody"
    if step["principal"] == step["kind"]:  # the service principal by that name, which every tenant has
        return f"the {step['kind']}"
    return f"{step['kind']} {step['principal']}"


def started_by(job: Record) -> str:
    """Return who or what started a job, and, of a delivery's job, who was the first to have it accepted anew."""
    # Of other jobs the names also mean people who asked for nothing and yet may not approve, such as a key's maker.
    if job["delivery_id"] and job["replayed_by"]:
        return f"{_trigger(job)}; accepted anew by {job['replayed_by'][0]}"
    return _trigger(job)


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
