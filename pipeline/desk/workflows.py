"""What a person does about workflows: switched on and off, tenant by tenant, each change with its audit row."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, select

from identity.audit import Act
from identity.errors import BadInput
from identity.rows import insert_or
from pipeline.desk.changes import record_change
from pipeline.ledger import queries
from pipeline.schedules.changes import ensure_schedule
from pipeline.tables import workflow_settings
from pipeline.workflow import Workflow


def enable(
    connection: Connection, tenant: str, workflow: Workflow, act: Act, *, config: object | None
) -> dict[str, Any]:
    """Switch it on for a tenant. *config* None: what is stored, else the workflow's own. Returns what holds.

    What is stored may be older than the code: it is checked again before jobs are accepted with it. Raises BadInput.
    """
    queries.living_tenant(connection, tenant)
    chosen = checked_config(workflow, _stored(connection, tenant, workflow.name) if config is None else config)
    values = {"enabled": True, "config": chosen}
    row = insert_or(connection, workflow_settings).values(tenant_id=tenant, workflow=workflow.name, **values)
    connection.execute(row.on_conflict_do_update(index_elements=["tenant_id", "workflow"], set_=values))
    ensure_schedule(connection, tenant, workflow, now=act.now)
    record_change(connection, "workflow.enabled", tenant, {"workflow": workflow.name}, act)
    return chosen


def disable(connection: Connection, tenant: str, workflow: str, act: Act) -> None:
    """Switch it off for a tenant: no new jobs. Raises BadInput if it is not known there."""
    queries.living_tenant(connection, tenant)
    columns = workflow_settings.c
    off = workflow_settings.update().where(columns.tenant_id == tenant, columns.workflow == workflow)
    if connection.execute(off.values(enabled=False)).rowcount == 0:
        raise BadInput(f"{workflow} is not switched on for {tenant}: `aswhom workflows list` shows what is")
    record_change(connection, "workflow.disabled", tenant, {"workflow": workflow}, act)


def checked_config(workflow: Workflow, document: object) -> dict[str, Any]:
    """The configuration as its model reads it. Raises BadInput, which names what does not fit."""
    try:
        read = workflow.config.model_validate(document)
    except ValidationError as error:
        faults = "".join(
            f"\n  - {'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise BadInput(f"this is no configuration of {workflow.name}:{faults}") from error
    try:
        chosen: dict[str, Any] = read.model_dump(mode="json")
        json.dumps(chosen, allow_nan=False)  # PostgreSQL's has no infinity
    except ValueError as error:
        raise BadInput(f"this is no configuration of {workflow.name}: JSON cannot hold it") from error
    return chosen


def _stored(connection: Connection, tenant: str, workflow: str) -> dict[str, Any]:
    """What was configured before; empty: nothing was."""
    which = (workflow_settings.c.tenant_id == tenant) & (workflow_settings.c.workflow == workflow)
    found: dict[str, Any] | None = connection.execute(
        select(workflow_settings.c.config).where(which)
    ).scalar_one_or_none()
    return found or {}
