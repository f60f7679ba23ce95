"""`workflows`: what agents may do, switched on per tenant."""

from __future__ import annotations

from typing import Any

import click

from deploy.cli.command import command, json_file
from deploy.cli.output import Output
from deploy.installation import Installation
from pipeline.desk import workflows as acts
from pipeline.jobs.missing_workflows import missing_workflows
from pipeline.views import operator_queries


@click.group()
def workflows() -> None:
    """What agents may do, switched on per tenant."""


@command(workflows, "list")
@click.option("--tenant", help="Show only this tenant's switches.")
def list_workflows(at: Installation, out: Output, tenant: str | None) -> None:
    """List workflows and the tenants they are on for, including those that are on or have jobs but are missing here."""
    settings, missing = at.read(
        lambda c: (operator_queries.all_workflow_settings(c, tenant), missing_workflows(c, at.workflows, tenant=tenant))
    )
    rows = [
        {
            "workflow": one.name,
            "agent": one.agent,
            "pattern": str(one.pattern),
            "starts": [f"{trigger.source} {trigger.event}" for trigger in one.on]
            + ([f"{one.schedule.cron} {one.schedule.zone}"] if one.schedule else []),
            "enabled_for": [s["tenant_id"] for s in settings if s["workflow"] == one.name and s["enabled"]],
            "settings": [s for s in settings if s["workflow"] == one.name],
            "installed": True,
        }
        for one in at.workflows
    ]
    rows += [
        {
            "workflow": one.name,
            "agent": None,
            "pattern": None,
            "starts": [],
            "enabled_for": list(one.on_for),
            "settings": [s for s in settings if s["workflow"] == one.name],
            "installed": False,
        }
        for one in missing
    ]
    out.rows(rows, ("workflow", "agent", "pattern", "starts", "enabled_for"), empty="No workflow is installed")
    for one in missing:
        out.note(one.sentence)


@command(workflows)
@click.argument("workflow")
@click.option("--tenant", required=True)
@click.option(
    "--config",
    "config_file",
    callback=json_file,
    metavar="FILE",
    help="Its configuration in JSON. '-': stdin.  [default: the stored one, or the workflow's own]",
)
def enable(at: Installation, out: Output, workflow: str, tenant: str, config_file: Any) -> None:
    """Switch WORKFLOW on for a tenant. The configuration applies to jobs accepted from now on."""
    declared = at.workflows.declared(workflow)
    act = at.act()
    config = at.write(lambda c: acts.enable(c, tenant, declared, act, config=config_file))
    out.done(f"{workflow} is on for {tenant}", {"workflow": workflow, "tenant": tenant, "config": config})


@command(workflows)
@click.argument("workflow")
@click.option("--tenant", required=True)
@click.option("--event", callback=json_file, metavar="FILE", help="The event in JSON. '-': stdin.  [default: a Tick]")
def start(at: Installation, out: Output, workflow: str, tenant: str, event: Any) -> None:
    """Start a job of WORKFLOW by hand, now. Its work is really done.

    A scheduled workflow takes a Tick, which is created for it. Any other workflow takes the event that its triggers
    read from a delivery, as shown by `aswhom jobs show` for an earlier job. To send a whole delivery instead, use
    `aswhom trigger`.
    """
    declared = at.workflows.declared(workflow)
    act, job = at.act(), at.ids("job")
    bells = at.write(lambda c: acts.start(c, tenant, declared, act, event=event, job=job))
    at.ring_jobs(bells)
    out.done(f"{job} is accepted: `aswhom jobs show {job}` follows it", {"job": job, "workflow": workflow})


@command(workflows)
@click.argument("workflow")
@click.option("--tenant", required=True)
def disable(at: Installation, out: Output, workflow: str, tenant: str) -> None:
    """Switch WORKFLOW off for a tenant: no new jobs. Accepted jobs continue; `aswhom revoke agent` stops them."""
    act = at.act()
    at.write(lambda c: acts.disable(c, tenant, workflow, act))
    out.done(f"{workflow} is off for {tenant}", {"workflow": workflow, "tenant": tenant})
