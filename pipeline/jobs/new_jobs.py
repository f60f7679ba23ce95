"""Accept new jobs: each takes a ledger number; jobs share stored configurations and scope sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, case, exists, insert, select

from identity.principals import ensure_agent
from identity.sql.columns import Instant, database_now
from identity.sql.prepared import Prepared
from identity.sql.sequence import NUMBERS, next_number
from identity.tables import agents
from pipeline.authoring.declared_workflow import Workflow
from pipeline.events import ExternalUser
from pipeline.jobs import bells, pins, scope_sets
from pipeline.jobs.tenant_setup import TenantSetup, setup_of
from pipeline.model import Bell
from pipeline.states import JobState
from pipeline.tables import jobs, pinned_configuration

# Every acceptance runs these statements; building them takes longer than running them.
_STORED = Prepared(
    select(
        exists().where(agents.c.id == bindparam("agent")).label("agent"),
        exists().where(pinned_configuration.c.sha256 == bindparam("config")).label("config"),
        scope_sets.IS_STORED.label("scopes"),
    )
)

# `due`, but at most the database's now: our clock may be ahead of the clock that due times are compared with, and
# SQLite's counts whole milliseconds.
_DUE = bindparam("due", type_=Instant)
_AT_ONCE = case((database_now() > _DUE, _DUE), else_=database_now())


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as requested by its trigger."""

    id: str
    tenant: str
    workflow: Workflow
    event: Mapping[str, Any]
    config: Mapping[str, Any]  # the configuration pinned to the job
    user: str | None = None  # the principal that USER resolves to
    triggered_by: ExternalUser | str | None = None  # the sender of the event
    delivery: str | None = None  # the delivery that started it
    source_connection: str | None = None  # the provider connection the delivery came through
    request: str | None = None  # the agent request that started it
    # Every name of the person who replayed the delivery, started the job by hand, or may hold the key that requested
    # it.
    replayed_by: Sequence[str] = ()


def insert_job(
    connection: Connection, new: NewJob, *, now: datetime, here: TenantSetup | None = None, ring: bool = False
) -> Bell | None:
    """Accept one job. Its ledger number decides which revocations still stop it.

    *here*: the tenant's setup for the workflow, if already read. *ring*: grant a bell, which the caller rings after the
    commit, unless the tenant has used its share or an older job of it is waiting for a bell; `ring_due` then picks the
    next job.
    """
    workflow, by = new.workflow, new.triggered_by
    sender = by if isinstance(by, ExternalUser) else None
    digest = pins.digest_of(new.config)
    here = setup_of(connection, new.tenant, [workflow]) if here is None else here
    scopes = scope_sets.scope_set(here, workflow, new.user)
    _store_shared(connection, new, digest, scopes, now)
    row = {
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
        "due": now,
        "fence": 0,
        "runs_spent": 0,
        "created_at": now,
    }
    on_postgresql = connection.dialect.name == "postgresql"
    if not on_postgresql:
        row["accepted"] = next_number(connection)
    if not ring:
        _insert_job(numbers=on_postgresql, rings=False).run(connection, row)
        return None
    of = {"tenant": new.tenant, "of_pattern": workflow.pattern, "share": bells.FIRST_SHARE}
    until = _insert_job(numbers=on_postgresql, rings=True).run(connection, {**row, **of}).scalar_one()
    if until is None:
        return None
    return Bell(job=new.id, tenant=new.tenant, pattern=workflow.pattern, rung_until=until)


def _store_shared(connection: Connection, new: NewJob, digest: str, scopes: scope_sets.ScopeSet, now: datetime) -> None:
    """Store the rows that jobs share and that are never deleted. Usually all exist, so one query is enough."""
    agent = new.workflow.agent
    shared = {"agent": agent, "config": digest, "tenant": new.tenant, "scopes": scopes.sha256}
    stored = _STORED.run(connection, shared).one()
    if not stored.agent:
        ensure_agent(connection, id=agent, tenant=None, name=agent, now=now)
    if not stored.config:
        pins.store(connection, new.config)
    if not stored.scopes:
        scope_sets.store(connection, scopes)


@cache
def _insert_job(*, numbers: bool, rings: bool) -> Prepared:
    """Build the INSERT of a job. With *numbers*, the row draws its ledger number from the sequence."""
    statement: Any = insert(jobs).values(due_at=_AT_ONCE)
    if numbers:
        statement = statement.values(accepted=NUMBERS.next_value())
    if rings:
        statement = statement.values(rung_until=bells.RUNG_UNTIL_IF_ROOM).returning(jobs.c.rung_until)
    return Prepared(statement)
