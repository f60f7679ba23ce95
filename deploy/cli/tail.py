"""`tail`: follows jobs, one line for each step and each change of state."""

from __future__ import annotations

from datetime import timedelta

import click

from deploy.cli.command import DONE, PROBLEM, invocation
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.local_times import local_time
from deploy.waiting import looks
from identity.hold import Hold, find_hold
from pipeline.states import ENDED, JobState
from pipeline.views import operator_queries
from pipeline.views.job_tail import Following, Moved
from pipeline.views.wording import as_whom

_BETWEEN = timedelta(seconds=0.5)


@click.command()
@click.argument("job", required=False)
@click.option("--tenant")
@click.option("--workflow")
@click.option("--timeout", type=click.FloatRange(0), help="Stop after this many seconds.  [default: at Ctrl-C]")
@invocation
def tail(
    at: Installation, out: Output, job: str | None, tenant: str | None, workflow: str | None, timeout: float | None
) -> int:
    """Follow jobs as they change state, starting with the unfinished ones, until Ctrl-C.

    With JOB, follow only that one until it ends, and exit with 1 unless it is done. --json prints a document a line.
    """
    if job is not None:
        at.read(lambda c: operator_queries.any_job(c, job))
    following = Following(since=at.now(), tenant=tenant, workflow=workflow, job=job)
    state = ""
    held: Hold | None = None  # as last printed
    for _ in looks(None if timeout is None else timedelta(seconds=timeout), every=_BETWEEN):
        came, standing = at.read(lambda c: (following.look(c), find_hold(c)))
        for moved in came:
            state = moved.job["state"]
            _tell(at, out, moved)
        if standing != held and state not in ENDED:
            out.note("It is released: work goes on" if standing is None else f"It is {standing.sentence}")
        held = standing
        if job is not None and state in ENDED:
            return DONE if state == JobState.DONE else PROBLEM
    return DONE if job is None else PROBLEM


def _tell(at: Installation, out: Output, moved: Moved) -> None:
    job, step, when = moved.job, moved.step, moved.at or at.now()
    document = {"at": when, "job": job["id"], "tenant": job["tenant_id"], "workflow": job["workflow"]}
    head = f"{local_time(when)} {job['id']} {job['tenant_id']} {job['workflow']}"
    if step is None:
        wait, why = job["wait"] if job["state"] == JobState.WAITING else None, job["reason"]
        out.line(
            f"{head}  {job['state']}{f' for {wait}' if wait else ''}{_because(why)}",
            {**document, "state": job["state"], "wait": wait, "reason": why},
        )
        return
    whom, why = as_whom(step), step["error"] or step["reason"]
    facts = {name: step[name] for name in ("position", "action", "pattern", "state", "external_id")}
    out.line(
        f"{head}  {step['position']} {step['action']} as {whom}: {step['state']}{_because(why)}",
        {**document, "step": {**facts, "as_whom": whom, "reason": why}},
    )


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""
