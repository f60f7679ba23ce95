"""`jobs`: what agents did, as whom, and why; and the actions an operator can take on a job."""

from __future__ import annotations

from functools import partial

import click
from sqlalchemy import Connection

from deploy.cli.command import LIMIT, YES, command, confirm
from deploy.cli.filters import tell_unknown, tenants_of
from deploy.cli.output import Output
from deploy.cli.policy import answered
from deploy.cli.unfinished import what_it_asks, where_it_stopped
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.errors import BadInput
from identity.hold import find_hold
from pipeline.approvals.views import approvals_of_job
from pipeline.authoring.declared_workflow import PLATFORM_AGENT
from pipeline.desk import jobs as acts
from pipeline.ledger.paging import Record, Turn
from pipeline.states import ENDED, JobState, Purpose, Wait
from pipeline.views import operator_queries, tenant_views
from pipeline.views.tenant_views import JobFilter
from pipeline.views.wording import as_whom, started_by


@click.group()
def jobs() -> None:
    """What agents did, as whom, and why."""


@command(jobs, "list")
@click.option("--tenant")
@click.option("--state", type=click.Choice([str(state) for state in JobState]))
@click.option(
    "--wait",
    type=click.Choice([str(wait) for wait in Wait]),
    help="Only jobs that wait for this. unknown: also ended jobs with a call of unknown outcome.",
)
@click.option("--unfinished", is_flag=True, help="Jobs in every state that may still do something.")
@click.option("--workflow")
@LIMIT
def list_jobs(
    at: Installation,
    out: Output,
    tenant: str | None,
    state: str | None,
    wait: str | None,
    unfinished: bool,
    workflow: str | None,
    limit: int,
) -> None:
    """List jobs, newest first."""
    if unfinished and (state or wait):
        raise BadInput("--unfinished covers several states: do not also give --state or --wait")
    states = [str(one) for one in JobState if one not in ENDED] if unfinished else [state]

    def find(c: Connection) -> list[Record]:
        look = partial(tenant_views.jobs_page, c, tenants_of(tenant), Turn(limit=limit + 1))
        found = [row for one in states for row in look(JobFilter(state=one, wait=wait, workflow=workflow)).rows]
        return sorted(found, key=lambda row: (row["created_at"], row["id"]), reverse=True)[: limit + 1]

    rows, held = at.read(lambda c: (find(c), find_hold(c)))
    columns = ("id", "tenant_id", "workflow", "pattern", "state", "wait", "user_id", "created_at", "reason")
    out.page(rows, columns, limit=limit, empty="No such job. Deliveries, requests and schedules start them")
    if held and any(row["state"] not in ENDED for row in rows[:limit]):
        out.note(f"It is {held.sentence}")
    if any(row["wait"] == Wait.UNKNOWN for row in rows[:limit]):
        out.note("What became of a call is said as `aswhom jobs show ID` tells")
    if not rows:
        tell_unknown(at, out, tenant=tenant, workflow=workflow)


@command(jobs)
@click.argument("id")
def show(at: Installation, out: Output, id: str) -> None:
    """Show one job: what happened, in sentences, and its steps with as whom, by which pattern, and why."""
    job, started, steps, approvals, followed, held = at.read(
        lambda c: (
            job := operator_queries.any_job(c, id),
            started_by(c, job),
            tenant_views.steps_of(c, id),
            approvals_of_job(c, id),
            operator_queries.compensation_of(c, id),
            find_hold(c),
        )
    )
    waits = held is not None and job["state"] not in ENDED
    if out.as_json:
        out.document({**job, "steps": steps, "compensations": followed, "held": waits})
        return
    for sentence in (*sentences(job, started), *what_it_asks(job, steps), *where_it_stopped(job, steps, followed)):
        out.sentence(sentence)
    if held and waits:
        out.sentence(f"Meanwhile the installation is {held.sentence}.")
    for step in steps:
        for line in answered(approvals, step):
            out.sentence(f"Step {step['position']}, {line}.")
    if steps:
        out.sentence("")
        out.table([_step(step) for step in steps], ("step", "action", "as_whom", "pattern", "state", "attempts", "why"))


def sentences(job: Record, started_by: str) -> list[str]:
    """Describe what happened to a job."""
    meant = f"; the user it means is {job['user_id']}" if job["user_id"] else ""
    told = [
        f"{job['id']}: {job['workflow']} for {job['tenant_id']} by agent {job['agent_id']}, {job['state']}.",
        f"Started by {started_by} at {local_time(job['created_at'])}{meant}.",
    ]
    if job["agent_id"] == PLATFORM_AGENT:
        of = job["event"]
        told.append(f"It follows {of['action']} of {of['job']}, which {of['revocation']} stopped.")
    if job["state"] == JobState.WAITING:
        waits_for = f" for {job['waits_for']}" if job["waits_for"] else ""
        at_most = "" if job["wait"] == Wait.TIME else " at most"
        until = f", until {local_time(job['expires_at'])}{at_most}" if job["expires_at"] else ""
        told.append(f"It waits ({job['wait']}{waits_for}){until}.")
    if job["reason"]:
        told.append(f"Because: {job['reason']}")
    if job["runs_spent"]:
        told.append(f"{job['runs_spent']} run(s) came to nothing.")
    if job["revocation_id"]:
        told.append(f"Stopped by {job['revocation_id']}: `aswhom revocations show {job['revocation_id']}`.")
    if job["finished_at"]:
        told.append(f"Finished at {local_time(job['finished_at'])}.")
    return told


@command(jobs)
@click.argument("id")
@YES
def cancel(at: Installation, out: Output, id: str, yes: bool) -> None:
    """Cancel a job: immediately if it is queued or waiting, at its next step if it is running."""
    job = at.read(lambda c: operator_queries.any_job(c, id))
    confirm(f"End {id}, {job['workflow']} for {job['tenant_id']} ({job['state']})?", yes=yes)
    act = at.act()
    to = at.write(lambda c: acts.cancel(c, id, act))
    sentence = f"{id} stops at its next step" if to is JobState.STOPPING else f"{id} is cancelled"
    out.done(sentence, {"id": id, "state": str(to)})


def _step(step: Record) -> Record:
    tries = [_try(one) for one in step["attempts"]]
    return {
        "step": step["position"],
        "action": step["action"],
        "as_whom": as_whom(step),
        "pattern": step["pattern"],
        "state": step["state"],
        "attempts": ", ".join(tries),
        "why": step["error"] or step["reason"],
    }


def _try(attempt: Record) -> str:
    told = f"{attempt['state']} {attempt['status'] or ''}".strip()
    # Its answer is no effect of what the step asks for since the replay.
    return f"{told} (read before the replay)" if attempt["purpose"] == Purpose.READ_BEFORE else told
