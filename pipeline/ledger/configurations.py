"""Tenants' configurations of workflows, and what is said of one that its workflow no longer takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, select

from identity.tables import tenants
from pipeline.fields import misfitting
from pipeline.tables import workflow_settings
from pipeline.workflow import Registry, Workflow


def refusal(workflow: Workflow, config: Mapping[str, Any]) -> str:
    """Why a job of it could not run under that, or nothing."""
    try:
        workflow.config.model_validate(config)
    except ValidationError as error:
        fields = misfitting(error)
        return f"the tenant's configuration of it no longer fits ({fields}): `aswhom workflows enable --config`"
    return ""


def refused(connection: Connection, workflows: Registry) -> list[str]:
    """A sentence for each that is on and refused by the workflow that is installed here."""
    columns = workflow_settings.c
    on = select(columns.workflow, columns.tenant_id, columns.config).where(
        columns.enabled, columns.tenant_id.in_(select(tenants.c.id).where(tenants.c.deleted_at.is_(None)))
    )
    return [
        f"{name} is on for {tenant}, and {fault}"
        for name, tenant, config in connection.execute(on.order_by(columns.workflow, columns.tenant_id))
        if (declared := workflows.find(name)) is not None and (fault := refusal(declared, config))
    ]
