"""`jobs failures` and `jobs replay`: dead jobs grouped by cause, and jobs that are accepted again."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from hashlib import sha256

import click

from deploy.cli.command import PROBLEM, YES, command, confirm
from deploy.cli.jobs import jobs
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import BadInput
from pipeline.batches import in_batches
from pipeline.desk import jobs as acts
from pipeline.states import JobState
from pipeline.views import operator_queries
from pipeline.views.dead_letters import MOST, cause, dead_behind, dead_letters

_AT_ONCE = 50  # jobs in one transaction


@command(jobs)
@click.option("--tenant")
def failures(at: Installation, out: Output, tenant: str | None) -> None:
    """Group dead jobs by workflow and cause, the largest group first."""
    found = at.read(lambda c: dead_letters(c, tenant))
    rows = [
        {
            "cause": _name(group.workflow, group.cause),
            "jobs": len(group.jobs),
            "workflow": group.workflow,
            "tenants": group.tenants,
            "newest": group.newest,
            "oldest": group.oldest,
            "why": group.example,
            "ids": group.jobs,
        }
        for group in found.groups
    ]
    out.rows(rows, ("cause", "jobs", "workflow", "tenants", "newest", "why"), empty="No job is dead")
    if rows:
        out.note("Fix a cause, then `aswhom jobs replay --cause CAUSE`")
    if not found.all:
        out.note(f"only the newest {MOST} dead jobs were looked at")


@command(jobs)
@click.argument("ids", nargs=-1)
@click.option("--cause", "cause_name", help="All dead jobs of this group, by its name in `jobs failures`.")
@click.option("--tenant", help="With --cause: only this tenant's jobs.")
@click.option("--dry-run", is_flag=True, help="Show which would be replayed, and replay none.")
@YES
def replay(
    at: Installation,
    out: Output,
    ids: tuple[str, ...],
    cause_name: str | None,
    tenant: str | None,
    dry_run: bool,
    yes: bool,
) -> int | None:
    """Accept dead or cancelled jobs again, including revoked ones. What a job did is not done again.

    For a cause, the oldest 2,000 are replayed; repeat the command for the rest. Exits with 1 if a job could not be
    replayed, for example because it changed state meanwhile. With --json, `more` says whether more jobs may remain.
    """
    named = cause_name
    if bool(ids) is bool(named) or (tenant and not named):
        raise click.UsageError("Give either ids, or --cause with or without --tenant.")
    chosen, all_of_it = _of_cause(at, named, tenant) if named else (ids, True)
    if not all_of_it:
        out.note(f"these are the oldest {len(chosen)} of that cause: repeat the command for the rest")
    if dry_run:
        out.done("\n".join(chosen), {"would_replay": list(chosen), "more": not all_of_it})
        return None
    confirm(_question(at, chosen, named), yes=yes)
    done: list[str] = []
    refused: list[str] = []
    with out.progress(len(chosen), what="replaying") as bar:
        for some in in_batches(chosen, _AT_ONCE):
            replayed = at.write(partial(acts.replay_all, ids=some, act=at.act(), workflows=at.workflows))
            at.ring_jobs(replayed.bells)
            done += replayed.jobs
            refused += replayed.refused
            bar.update(len(some))
    if len(chosen) == 1 and refused:
        raise BadInput(refused[0])
    out.left_out(refused)
    told = f"{done[0]} is queued again" if len(done) == 1 else f"{len(done)} jobs are queued again"
    document = {"replayed": done, "state": str(JobState.QUEUED), "left_out": refused, "more": not all_of_it}
    out.done(told, document)
    return PROBLEM if refused else None


def _name(workflow: str, why: str) -> str:
    """Return a short name that is stable as long as the cause is."""
    return sha256(f"{workflow}\n{why}".encode()).hexdigest()[:8]


def _of_cause(at: Installation, named: str, tenant: str | None) -> tuple[tuple[str, ...], bool]:
    """Return the cause's oldest dead jobs, oldest first, and whether that is all of them."""
    found: list[str] = []
    last: tuple[datetime, str] | None = None
    while len(found) <= MOST:
        rows = at.read(partial(dead_behind, tenant=tenant, last=last))
        found += [row.id for row in rows if _name(row.workflow, cause(row.reason)) == named]
        if len(rows) < MOST:
            break
        last = (rows[-1].created_at, rows[-1].id)
    if not found:
        raise BadInput(f"there is no cause {named}: `aswhom jobs failures` shows those there are")
    return tuple(found[:MOST]), len(found) <= MOST


def _question(at: Installation, ids: tuple[str, ...], named: str | None) -> str:
    if named is None and len(ids) == 1:
        job = at.read(lambda c: operator_queries.any_job(c, ids[0]))
        return f"Run {job['id']} again ({job['state']}: {job['reason']})?"
    return f"Run {len(ids)} jobs again?"
