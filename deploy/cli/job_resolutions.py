"""`jobs resolve`: records what a person found out about unanswered calls, one or many at once."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

import click
from sqlalchemy import Connection

from deploy.cli.command import MOMENT, PROBLEM, YES, command, confirm, json_file
from deploy.cli.filters import tenants_of
from deploy.cli.jobs import jobs
from deploy.cli.output import Output
from deploy.cli.unfinished import resolving, step_by_step
from deploy.installation import Installation
from identity.errors import BadInput
from pipeline.batches import in_batches
from pipeline.desk import jobs as acts
from pipeline.desk.unanswered import asked_about, unanswered_calls
from pipeline.ledger.paging import Record
from pipeline.states import ENDED, JobState
from pipeline.steps.resolution import Resolution
from pipeline.views import operator_queries, tenant_views
from pipeline.views.unanswered import Window, in_steps, unanswered_in

_AT_ONCE = 50  # steps in one transaction


@command(jobs)
@click.argument("id", required=False)
@click.option("--effect", is_flag=True, help="The unanswered call took effect upstream.")
@click.option("--no-effect", is_flag=True, help="The unanswered call had no effect.")
@click.option("--result", callback=json_file, metavar="FILE", help="With --effect: the step's result, in JSON.")
@click.option(
    "--call",
    "calls",
    multiple=True,
    metavar="ATTEMPT",
    help="The call you checked, by its name in `jobs show`. Repeatable.  [default: the ones the job asks about]",
)
@click.option("--action", help="Without an id: every call of this action …")
@click.option("--since", type=MOMENT, help="… that was sent at or after this time, 2026-12-01T08:00Z …")
@click.option("--until", type=MOMENT, help="… and before this time.")
@click.option("--tenant", help="Without an id: only this tenant's calls.")
@click.option("--dry-run", is_flag=True, help="Without an id: show which calls, and record nothing.")
@click.option("--count", type=click.IntRange(1), help="Without an id, with --yes: how many calls --dry-run showed.")
@YES
def resolve(
    at: Installation,
    out: Output,
    id: str | None,
    effect: bool,
    no_effect: bool,
    result: Any,
    calls: tuple[str, ...],
    action: str | None,
    since: datetime | None,
    until: datetime | None,
    tenant: str | None,
    dry_run: bool,
    count: int | None,
    yes: bool,
) -> int | None:
    """Record the outcome of a call that nobody could look up. A job that waits for it continues accordingly.

    If the job asks about another call by now, nothing is recorded, since your answer was not about that one. `--yes`
    requires `--call`. A cancelled or dead job stays as it is, and the receipt of the revocation that stopped it is
    updated.

    Without an id, the command records for many calls that they had no effect: all of an action, sent between two times.
    `--yes` requires `--count`. Exits with 1 if a call could not be settled.
    """
    if effect is no_effect:
        raise click.UsageError("Look at the provider, then give either --effect or --no-effect.")
    if (result is not None) and not effect:
        raise click.UsageError("A call without effect has no result.")
    if id is None:
        if action is None or since is None or until is None or calls:
            raise click.UsageError("Give an id, or --action with --since and --until.")
        if effect:
            raise click.UsageError(
                "Each call that took effect has a result of its own: give --effect with the id of one job."
            )
        if yes and count is None and not dry_run:  # more calls may be unknown by now than were checked
            raise click.UsageError("With --yes, say with --count how many calls you looked at: --dry-run counts them.")
        window = Window(action=action, since=since, until=until, tenants=tenants_of(tenant))
        return _resolve_many(at, out, window, count=count, dry_run=dry_run, yes=yes)
    if action or since or until or tenant or dry_run or count:
        raise click.UsageError(
            "With an id, do not also give --action, --since, --until, --tenant, --dry-run or --count."
        )
    _resolve_one(at, out, id, effect=effect, result=result, calls=calls, yes=yes)
    return None


def _resolve_one(
    at: Installation, out: Output, id: str, *, effect: bool, result: Any, calls: tuple[str, ...], yes: bool
) -> None:
    said = "had its effect" if effect else "had no effect"
    job, steps = at.read(lambda c: (operator_queries.any_job(c, id), tenant_views.steps_of(c, id)))
    in_doubt = unanswered_calls(steps)
    asked = [one for one in in_doubt if one.attempt["id"] in calls] if calls else asked_about(steps)
    if not calls and job["state"] in ENDED and len(asked) < len(in_doubt):  # only a waiting job asks about one step
        raise BadInput(f"job {id} is in doubt about several steps: look for each, then {step_by_step(job, in_doubt)}")
    if not calls and len(asked) > 1:
        raise BadInput(f"job {id} asks about {len(asked)} calls: look for each, then {resolving(job, steps)}")
    if not calls and asked and yes:  # without a prompt, this could settle a later call than the one that was checked
        raise BadInput(f"with --yes, say which call you looked for: {resolving(job, steps)}")
    if asked:
        named = "; ".join(f"{one.step['action']} (call {one.attempt['id']})" for one in asked)
        confirm(f"Record that {named} {said}? This cannot be undone.", yes=yes)
    shown = calls or [one.attempt["id"] for one in asked]
    found_out, act = Resolution(calls=shown, effect=effect, result=result), at.act()

    def write(c: Connection) -> tuple[Record, acts.Resolved]:
        resolved = acts.resolve(c, id, found_out, act, workflows=at.workflows)
        return operator_queries.any_job(c, id), resolved

    job, resolved = at.write(write)
    at.ring_jobs(resolved.bells)
    if resolved.revocations:
        at.ring_revocations(resolved.revocations)
    then = "the job goes on" if job["state"] == JobState.QUEUED else f"the job stays {job['state']}"
    out.done(
        f"the call of {id} {said}; {then}", {"id": id, "effect": effect, "revocations": list(resolved.revocations)}
    )


def _resolve_many(
    at: Installation, out: Output, window: Window, *, count: int | None, dry_run: bool, yes: bool
) -> int | None:
    """Record that the calls found now had no effect. Calls resolved by someone else meanwhile are skipped."""
    if window.until > at.now():
        raise BadInput("--until is in the future: you cannot know the outcome of calls that are still to be sent")
    found = at.read(lambda c: unanswered_in(c, window))
    chosen = in_steps(found)
    if not chosen:
        raise BadInput(
            f"no call of {window.action} that was sent between these times has an unknown outcome: "
            "`aswhom jobs list --wait unknown` shows the jobs that wait for one"
        )
    jobs_of, tenants = len({one.job for one in chosen}), len({row["tenant_id"] for row in found})
    counted = f"{len(found)} call(s) of {window.action}, by {jobs_of} job(s) of {tenants} tenant(s)"
    if dry_run:
        if not out.as_json:
            out.table(found, ("id", "job_id", "tenant_id", "workflow", "state", "opened_at"))
        out.done(f"{counted}: nothing was recorded", {"would_resolve": found})
        return None
    if count not in (None, len(found)):
        raise BadInput(f"there are {counted}, not {count}: look at them again with --dry-run. Nothing was recorded")
    confirm(
        f"Record that {counted}, had no effect? The jobs that wait for that send them again. This cannot be undone.",
        yes=yes,
    )
    done: list[str] = []
    refused: list[str] = []
    with out.progress(len(chosen), what="resolving") as bar:
        for some in in_batches(chosen, _AT_ONCE):
            resolved = at.write(partial(acts.resolve_all, steps=some, act=at.act(), workflows=at.workflows))
            at.ring_jobs(resolved.bells)
            if resolved.revocations:
                at.ring_revocations(resolved.revocations)
            done += resolved.calls
            refused += resolved.refused
            bar.update(len(some))
    out.left_out(refused)
    told = {"resolved": done, "left_out": refused}
    out.done(f"{len(done)} call(s) of {window.action} had no effect", told)
    return PROBLEM if refused else None
