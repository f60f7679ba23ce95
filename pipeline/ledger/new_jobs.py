"""New jobs: accepted with a ledger number, under a configuration and scopes that jobs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, exists, insert, select

from identity.principals import ensure_agent
from identity.sequence import next_number
from identity.tables import agents
from pipeline.ledger import pins, scope_sets
from pipeline.states import JobState
from pipeline.tables import jobs, pinned_configuration
from pipeline.workflow import ExternalUser, Workflow

# Every acceptance runs these; building them anew takes longer than the database does.
_STORED = select(
    exists().where(agents.c.id == bindparam("agent")).label("agent"),
    exists().where(pinned_configuration.c.sha256 == bindparam("config")).label("config"),
    scope_sets.IS_STORED.label("scopes"),
)
_INSERT_JOB = insert(jobs)


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as whatever starts it wants it."""

    id: str
    tenant: str
    workflow: Workflow
    event: Mapping[str, Any]
    config: Mapping[str, Any]  # what is pinned with it
    user: str | None = None  # the principal that USER means
    triggered_by: ExternalUser | str | None = None  # who sent the event
    delivery: str | None = None  # that started it
    source_connection: str | None = None  # through which that came
    request: str | None = None  # of an agent, that started it
    replayed_by: Sequence[str] = ()  # every name of whoever had its delivery looked at again


def insert_job(connection: Connection, new: NewJob, *, now: datetime) -> None:
    """Accept one job: its ledger number decides what a revocation may still stop."""
    workflow, by = new.workflow, new.triggered_by
    sender = by if isinstance(by, ExternalUser) else None
    digest = pins.digest_of(new.config)
    scopes = scope_sets.scope_set(connection, new.tenant, workflow, new.user)
    # Jobs share these rows, and nothing deletes them: as a rule all are there, and one look is all it takes.
    shared = {"agent": workflow.agent, "config": digest, "tenant": new.tenant, "scopes": scopes.sha256}
    stored = connection.execute(_STORED, shared).one()
    if not stored.agent:
        ensure_agent(connection, id=workflow.agent, tenant=None, name=workflow.agent, now=now)
    if not stored.config:
        pins.store(connection, new.config)
    if not stored.scopes:
        scope_sets.store(connection, scopes)
    connection.execute(
        _INSERT_JOB,
        {
            "id": new.id,
            "tenant_id": new.tenant,
            "agent_id": workflow.agent,
            "delivery_id": new.delivery,
            "request_id": new.request,
            "connection_id": new.source_connection,
            "workflow": workflow.name,
            "pattern": workflow.pattern,
            "user_id": new.user,
            "triggered_by": sender.name_for_good if sender else by,
            "triggered_login": sender.login if sender else None,
            "replayed_by": list(new.replayed_by) or None,
            "event": new.event,
            "config_sha256": digest,
            "scopes_sha256": scopes.sha256,
            "state": JobState.QUEUED,
            "accepted": next_number(connection),
            "due_at": now,
            "fence": 0,
            "runs_spent": 0,
            "created_at": now,
        },
    )
