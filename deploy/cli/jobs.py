"""`jobs`: what was done, as whom, and why; and what an operator can say about one."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from sqlalchemy import Connection

from deploy.cli.command import LIMIT, YES, command, confirm, json_file
from deploy.cli.filters import tell_unknown
from deploy.cli.output import Output
from deploy.cli.unfinished import resolving, step_by_step, what_it_asks, where_it_stopped
from deploy.installation import Installation
from deploy.moments import local_time
from identity.errors import BadInput
from identity.hold import find_hold
from pipeline.desk import jobs as acts
from pipeline.desk.telling import as_whom, started_by
from pipeline.desk.unanswered import asked_about, unanswered_calls
from pipeline.ledger import queries, views
from pipeline.ledger.paging import Record, Turn
from pipeline.states import ENDED, JobState, Wait
from pipeline.workflow import PLATFORM_AGENT


@click.group()
def jobs() -> None:
    """What was done, as whom, and why."""


@command(jobs, "list")
@click.option("--tenant")
@click.option("--state", type=click.Choice([str(state) for state in JobState]))
@click.option(
    "--wait",
    type=click.Choice([str(wait) for wait in Wait]),
    help="Those that wait, and for this. unknown: also those that were ended without a word about a call.",
)
@click.option("--unfinished", is_flag=True, help="Those of every state that may still do something.")
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
    """The jobs, newest first."""
    if unfinished and (state or wait):
        raise BadInput("--unfinished is of every state: leave out --state and --wait, or --unfinished")
    states = [str(one) for one in JobState if one not in ENDED] if unfinished else [state]

    def find(c: Connection) -> list[Record]:
        look = partial(views.jobs_page, c, tenant, Turn(limit=limit + 1), wait=wait, workflow=workflow)
        found = [row for one in states for row in look(state=one).rows]
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
    """One job: what happened in sentences, and its steps: what, as whom, by which pattern, and why."""
    job, steps, followed, held = at.read(
        lambda c: (queries.job(c, id), views.steps_of(c, id), queries.compensation_of(c, id), find_hold(c))
    )
    waits = held is not None and job["state"] not in ENDED
    if out.as_json:
        out.document({**job, "steps": steps, "compensations": followed, "held": waits})
        return
    for sentence in (*sentences(job), *what_it_asks(job, steps), *where_it_stopped(job, steps, followed)):
        out.sentence(sentence)
    if held and waits:
        out.sentence(f"Meanwhile the installation is {held.sentence}.")
    if steps:
        out.sentence("")
        out.table([_step(step) for step in steps], ("step", "action", "as_whom", "pattern", "state", "attempts", "why"))


def sentences(job: Record) -> list[str]:
    """What happened to a job."""
    meant = f"; the user it means is {job['user_id']}" if job["user_id"] else ""
    told = [
        f"{job['id']}: {job['workflow']} for {job['tenant_id']} by agent {job['agent_id']}, {job['state']}.",
        f"Started by {started_by(job)} at {local_time(job['created_at'])}{meant}.",
    ]
    if job["agent_id"] == PLATFORM_AGENT:
        of = job["event"]
        told.append(f"It follows {of['action']} of {of['job']}, which {of['revocation']} stopped.")
    if job["state"] == JobState.WAITING:
        waits_for = f" for {job['waits_for']}" if job["waits_for"] else ""
        until = f", until {local_time(job['expires_at'])} at most" if job["expires_at"] else ""
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
    """End a job: at once where it is queued or waits, at its next step where it runs."""
    job = at.read(lambda c: queries.job(c, id))
    confirm(f"End {id}, {job['workflow']} for {job['tenant_id']} ({job['state']})?", yes=yes)
    act = at.act()
    to = at.write(lambda c: acts.cancel(c, id, act))
    sentence = f"{id} stops at its next step" if to is JobState.STOPPING else f"{id} is cancelled"
    out.done(sentence, {"id": id, "state": str(to)})


@command(jobs)
@click.argument("id")
@click.option("--effect", is_flag=True, help="The call that got no answer did its work upstream.")
@click.option("--no-effect", is_flag=True, help="It did not.")
@click.option("--result", callback=json_file, metavar="FILE", help="With --effect: what the step returns, in JSON.")
@click.option(
    "--call",
    "calls",
    multiple=True,
    metavar="ATTEMPT",
    help="The call that you looked for, as `jobs show` names it; again for each.  [default: what it asks about]",
)
@YES
def resolve(
    at: Installation,
    out: Output,
    id: str,
    effect: bool,
    no_effect: bool,
    result: Any,
    calls: tuple[str, ...],
    yes: bool,
) -> None:
    """Say what became of a call whose outcome nobody could look up; a job that waits for it goes on with that.

    If the job asks about another call by now, nothing is done: your word was not about that. `--yes` wants `--call`.
    A job that was cancelled or is dead stays so; the receipt of the revocation that stopped it follows.
    """
    if effect is no_effect:
        raise click.UsageError("Look at the provider, then say --effect or --no-effect.")
    if (result is not None) and not effect:
        raise click.UsageError("A call without effect has no result.")
    said = "had its effect" if effect else "had no effect"
    job, steps = at.read(lambda c: (queries.job(c, id), views.steps_of(c, id)))
    in_doubt = unanswered_calls(steps)
    asked = [one for one in in_doubt if one.attempt["id"] in calls] if calls else asked_about(steps)
    if not calls and job["state"] in ENDED and len(asked) < len(in_doubt):  # a waiting job asks about one step
        raise BadInput(f"job {id} is in doubt about several steps: look for each, then {step_by_step(job, in_doubt)}")
    if not calls and len(asked) > 1:
        raise BadInput(f"job {id} asks about {len(asked)} calls: look for each, then {resolving(job, steps)}")
    if not calls and asked and yes:  # nobody sees which one it is, and it may be a later one than they looked for
        raise BadInput(f"with --yes, say which call you looked for: {resolving(job, steps)}")
    if asked:
        named = "; ".join(f"{one.step['action']} (call {one.attempt['id']})" for one in asked)
        confirm(f"Record that {named} {said}? This cannot be undone.", yes=yes)
    shown = calls or [one.attempt["id"] for one in asked]
    act = at.act()

    def write(c: Connection) -> tuple[Record, acts.Resolved]:
        resolved = acts.resolve(c, id, act, effect=effect, result=result, workflows=at.workflows, calls=shown)
        return queries.job(c, id), resolved

    job, resolved = at.write(write)
    at.ring_jobs(resolved.bells)
    if resolved.revocations:
        at.ring_revocations(resolved.revocations)
    then = "the job goes on" if job["state"] == JobState.QUEUED else f"the job stays {job['state']}"
    out.done(
        f"the call of {id} {said}; {then}", {"id": id, "effect": effect, "revocations": list(resolved.revocations)}
    )


def _step(step: Record) -> Record:
    tries = [f"{one['state']} {one['status'] or ''}".strip() for one in step["attempts"]]
    return {
        "step": step["position"],
        "action": step["action"],
        "as_whom": as_whom(step),
        "pattern": step["pattern"],
        "state": step["state"],
        "attempts": ", ".join(tries),
        "why": step["error"] or step["reason"],
    }
