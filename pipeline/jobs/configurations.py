"""Tenants' configurations of workflows, and faults of those that their workflow no longer accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, select

from identity.tables import tenants
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.fields import misfitting
from pipeline.tables import workflow_settings


def refusal(workflow: Workflow, config: Mapping[str, Any]) -> str:
    """Return why a job of the workflow could not run with this configuration, or an empty string."""
    try:
        workflow.config.model_validate(config)
    except ValidationError as error:
        fields = misfitting(error)
        return f"the tenant's configuration of it no longer fits ({fields}): `aswhom workflows enable --config`"
    return ""


def refused(connection: Connection, workflows: Registry) -> list[str]:
    """Return a sentence for each enabled configuration that the installed workflow refuses."""
    columns = workflow_settings.c
    on = select(columns.workflow, columns.tenant_id, columns.config).where(
        columns.enabled, columns.tenant_id.in_(select(tenants.c.id).where(tenants.c.deleted_at.is_(None)))
    )
    return [
        f"{name} is on for {tenant}, and {fault}"
        for name, tenant, config in connection.execute(on.order_by(columns.workflow, columns.tenant_id))
        if (declared := workflows.find(name)) is not None and (fault := refusal(declared, config))
    ]
