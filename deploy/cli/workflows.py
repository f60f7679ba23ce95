"""`workflows`: what agents may do for whom, switched on tenant by tenant."""

from __future__ import annotations

from typing import Any

import click
from pydantic import ValidationError
from sqlalchemy import Connection, select

from deploy.cli.command import command, json_file
from deploy.cli.output import Output
from deploy.installation import Installation
from identity import audit
from identity.errors import BadInput
from identity.rows import insert_or
from pipeline.ledger import queries
from pipeline.schedule_changes import ensure_schedule
from pipeline.tables import workflow_settings
from pipeline.workflow import Workflow


@click.group()
def workflows() -> None:
    """What agents may do for whom."""


@command(workflows, "list")
@click.option("--tenant", help="Say where it is switched on for this tenant only.")
def list_workflows(at: Installation, out: Output, tenant: str | None) -> None:
    """The workflows there are, and for whom they are switched on."""
    settings = at.read(lambda c: queries.all_workflow_settings(c, tenant))
    rows = [
        {
            "workflow": one.name,
            "agent": one.agent,
            "pattern": str(one.pattern),
            "starts": [f"{trigger.source} {trigger.event}" for trigger in one.on]
            + ([f"{one.schedule.cron} {one.schedule.zone}"] if one.schedule else []),
            "enabled_for": [s["tenant_id"] for s in settings if s["workflow"] == one.name and s["enabled"]],
            "settings": [s for s in settings if s["workflow"] == one.name],
        }
        for one in at.workflows
    ]
    out.rows(rows, ("workflow", "agent", "pattern", "starts", "enabled_for"), empty="No workflow is installed")


@command(workflows)
@click.argument("workflow")
@click.option("--tenant", required=True)
@click.option(
    "--config",
    "config_file",
    callback=json_file,
    metavar="FILE",
    help="Its configuration in JSON. '-': stdin.  [default: what is stored, else the workflow's own]",
)
def enable(at: Installation, out: Output, workflow: str, tenant: str, config_file: Any) -> None:
    """Switch WORKFLOW on for a tenant. What is configured holds for jobs accepted from now on."""
    declared = at.workflows.get(workflow)
    given = None if config_file is None else checked_config(declared, config_file)
    now, audit_id = at.now(), at.ids("aud")

    def write(c: Connection) -> dict[str, Any]:
        queries.living_tenant(c, tenant)
        # What is stored may be older than the code: it is checked again before jobs are accepted with it.
        config = checked_config(declared, _stored_config(c, tenant, workflow)) if given is None else given
        _store(c, tenant, workflow, enabled=True, config=config)
        ensure_schedule(c, tenant, declared, now=now)
        audit.record(
            c,
            id=audit_id,
            at=now,
            kind="workflow.enabled",
            tenant=tenant,
            agent=None,
            outcome="enabled",
            reason=f"by {at.operator}",
            detail={"workflow": workflow},
        )
        return config

    config = at.write(write)
    out.done(f"{workflow} is on for {tenant}", {"workflow": workflow, "tenant": tenant, "config": config})


@command(workflows)
@click.argument("workflow")
@click.option("--tenant", required=True)
def disable(at: Installation, out: Output, workflow: str, tenant: str) -> None:
    """Switch WORKFLOW off for a tenant: no new jobs. Those accepted already go on; `aswhom revoke agent` stops them."""
    now, audit_id = at.now(), at.ids("aud")

    def write(c: Connection) -> None:
        queries.tenant(c, tenant)
        off = workflow_settings.update().where(
            workflow_settings.c.tenant_id == tenant, workflow_settings.c.workflow == workflow
        )
        if c.execute(off.values(enabled=False)).rowcount == 0:
            raise BadInput(f"{workflow} is not switched on for {tenant}: `aswhom workflows list` shows what is")
        audit.record(
            c,
            id=audit_id,
            at=now,
            kind="workflow.disabled",
            tenant=tenant,
            outcome="disabled",
            reason=f"by {at.operator}",
            detail={"workflow": workflow},
        )

    at.write(write)
    out.done(f"{workflow} is off for {tenant}", {"workflow": workflow, "tenant": tenant})


def checked_config(workflow: Workflow, document: object) -> dict[str, Any]:
    """The configuration as its model reads it. Raises BadInput, which names what does not fit."""
    try:
        return workflow.config.model_validate(document).model_dump(mode="json")
    except ValidationError as error:
        faults = "".join(
            f"\n  - {'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise BadInput(f"this is no configuration of {workflow.name}:{faults}") from error


def _stored_config(c: Connection, tenant: str, workflow: str) -> dict[str, Any]:
    """What was configured before; empty: nothing was."""
    which = (workflow_settings.c.tenant_id == tenant) & (workflow_settings.c.workflow == workflow)
    found: dict[str, Any] | None = c.execute(select(workflow_settings.c.config).where(which)).scalar_one_or_none()
    return found or {}


def _store(c: Connection, tenant: str, workflow: str, *, enabled: bool, config: dict[str, Any]) -> None:
    row = insert_or(c, workflow_settings).values(tenant_id=tenant, workflow=workflow, enabled=enabled, config=config)
    values = {"enabled": enabled, "config": config}
    c.execute(row.on_conflict_do_update(index_elements=["tenant_id", "workflow"], set_=values))
