"""Operator actions on workflows: enable, disable and start one by hand, each with its audit row."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, select

from identity.audit import Act, AsWhom, Work, record_act
from identity.errors import BadInput
from identity.sql.rows import insert_or
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.matching import by_hand
from pipeline.desk.changes import record_change
from pipeline.events import Tick
from pipeline.jobs.bells import ring_due
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.jobs.tenant_setup import setup_of
from pipeline.model import Bell
from pipeline.operators import names_of
from pipeline.schedules.changes import ensure_schedule
from pipeline.tables import workflow_settings
from pipeline.views import operator_queries


def enable(
    connection: Connection, tenant: str, workflow: Workflow, act: Act, *, config: object | None
) -> dict[str, Any]:
    """Enable a workflow for a tenant. *config* None: the stored one, or else the workflow's default.

    Returns the configuration. The stored one may be older than the code, and is checked again before jobs are accepted
    with it. Raises BadInput.
    """
    operator_queries.living_tenant(connection, tenant)
    chosen = checked_config(workflow, _stored(connection, tenant, workflow.name) if config is None else config)
    values = {"enabled": True, "config": chosen}
    row = insert_or(connection, workflow_settings).values(tenant_id=tenant, workflow=workflow.name, **values)
    connection.execute(row.on_conflict_do_update(index_elements=["tenant_id", "workflow"], set_=values))
    ensure_schedule(connection, tenant, workflow, now=act.now)
    record_change(connection, "workflow.enabled", tenant, {"workflow": workflow.name}, act)
    return chosen


def disable(connection: Connection, tenant: str, workflow: str, act: Act) -> None:
    """Disable a workflow for a tenant, so that it gets no new jobs. Raises BadInput if it never was enabled there."""
    operator_queries.living_tenant(connection, tenant)
    columns = workflow_settings.c
    off = workflow_settings.update().where(columns.tenant_id == tenant, columns.workflow == workflow)
    if connection.execute(off.values(enabled=False)).rowcount == 0:
        raise BadInput(f"{workflow} is not switched on for {tenant}: `aswhom workflows list` shows what is")
    record_change(connection, "workflow.disabled", tenant, {"workflow": workflow}, act)


def start(
    connection: Connection, tenant: str, workflow: Workflow, act: Act, *, event: object | None, job: str
) -> tuple[Bell, ...]:
    """Accept *job* of a workflow, from an *event* as the workflow takes it; None: a schedule's tick at this time.

    The operator counts as its requester and cannot approve its steps. Returns the bells to ring. Raises BadInput.
    """
    operator_queries.living_tenant(connection, tenant)
    if event is None:
        if not issubclass(Tick, workflow.event):
            raise BadInput(f"{workflow.name} takes a {workflow.event.__name__}: give it one with --event FILE")
        event = Tick(slot=act.now.isoformat()).model_dump(mode="json")
    match = by_hand(workflow, event)
    users = [] if match.user is None else [(match.user.provider, match.user.id)]
    here = setup_of(connection, tenant, [workflow], users=users)
    if workflow.name not in here.configs:
        raise BadInput(f"{workflow.name} is not switched on for {tenant}: `aswhom workflows enable {workflow.name}`")
    if match.user is not None and here.principal(match.user) is None:
        raise BadInput(f"nobody of {tenant} is {match.user.name_for_good}: `aswhom aliases add` says who that is")
    new = NewJob(
        id=job,
        tenant=tenant,
        workflow=workflow,
        event=match.document,
        config=here.configs[workflow.name],
        user=here.principal(match.user),
        replayed_by=names_of(act.by, None),
    )
    insert_job(connection, new, now=act.now, here=here)
    whom = AsWhom(tenant=tenant, agent=workflow.agent, on_behalf_of=new.user)
    record_act(connection, "job.started", whom, act, work=Work(job=job), outcome="accepted")
    return ring_due(connection, tenant, workflow.pattern)


def checked_config(workflow: Workflow, document: object) -> dict[str, Any]:
    """Return the configuration as its model reads it. Raises BadInput, which names what does not fit."""
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
        json.dumps(chosen, allow_nan=False)  # PostgreSQL's JSON has no infinity
    except ValueError as error:
        raise BadInput(f"this is no configuration of {workflow.name}: JSON cannot hold it") from error
    return chosen


def _stored(connection: Connection, tenant: str, workflow: str) -> dict[str, Any]:
    """Return the stored configuration; empty if there is none."""
    which = (workflow_settings.c.tenant_id == tenant) & (workflow_settings.c.workflow == workflow)
    found: dict[str, Any] | None = connection.execute(
        select(workflow_settings.c.config).where(which)
    ).scalar_one_or_none()
    return found or {}
