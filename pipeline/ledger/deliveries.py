"""Acceptance: a verified delivery and the jobs it starts, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from identity.principals import ensure_agent, resolve_alias
from identity.rows import insert_or
from identity.sequence import next_number
from pipeline.ledger import bells, scope_sets, signals, signed_answers
from pipeline.ledger.whose import record_trespass, whose_delivery
from pipeline.model import Acceptance, Bell, SignedDelivery
from pipeline.states import JobState
from pipeline.tables import deliveries, delivery_bodies, jobs, pinned_configuration, workflow_settings
from pipeline.workflow import Match, Workflow

BODY_WINDOW = timedelta(days=3)  # as long as GitHub redelivers

# Every acceptance runs these; building them anew takes longer than the database does.
_ENABLED = select(workflow_settings.c.config).where(
    workflow_settings.c.tenant_id == bindparam("tenant"),
    workflow_settings.c.workflow == bindparam("name"),
    workflow_settings.c.enabled,
)
_INSERT_JOB = insert(jobs)
_CONCLUDE = update(deliveries).where(deliveries.c.id == bindparam("delivery"))


@dataclass(frozen=True, kw_only=True)
class NewIds:
    """Identifiers made before the transaction, which may run more than once."""

    delivery: str
    jobs: tuple[str, ...]
    revocation: str


def accept(
    connection: Connection,
    delivery: SignedDelivery,
    matches: Sequence[Match],
    *,
    ids: NewIds,
    outcome: str,
    reason: str,
    now: datetime,
) -> Acceptance:
    """Record a delivery and what follows from it. *outcome* and *reason* say why nothing does, when *matches* is empty.

    A delivery seen before changes nothing; a revocation signal is never taken for a repetition of its body.
    """
    digest = sha256(delivery.body).hexdigest()
    whose = whose_delivery(connection, delivery.connection, delivery.installation)
    row = {
        "id": ids.delivery,
        "source": delivery.source,
        "connection_id": delivery.connection,
        "tenant_id": whose.tenant,
        "delivery_id": delivery.delivery_id,
        "body_sha256": digest,
        "event": delivery.event,
        "outcome": outcome,
        "reason": reason,
        "body": delivery.body,
        "received_at": now,
    }
    new = insert_or(connection, deliveries).on_conflict_do_nothing(index_elements=["connection_id", "delivery_id"])
    if connection.execute(new, row).rowcount == 0:
        return _duplicate(connection, deliveries.c.delivery_id == delivery.delivery_id, delivery.connection)
    if (
        delivery.dedupe_by_body
        and delivery.signal is None
        and not _first_of_body(connection, delivery, ids.delivery, digest, now)
    ):
        connection.execute(delete(deliveries).where(deliveries.c.id == ids.delivery))
        first = select(delivery_bodies.c.delivery_id).where(
            delivery_bodies.c.connection_id == delivery.connection, delivery_bodies.c.body_sha256 == digest
        )
        return _duplicate(connection, deliveries.c.id == first.scalar_subquery(), delivery.connection)

    if whose.trespassed is not None:
        record_trespass(connection, delivery, whose, id=ids.delivery, now=now)
    if delivery.signal is not None:
        followed = signals.follow(
            connection,
            delivery.connection,
            delivery.signal,
            id=ids.revocation,
            by=f"provider:{delivery.source}",
            told=ids.delivery,
            # Remembered apart from the deliveries, since a signal is never refused for being a repetition.
            seen=not _first_of_body(connection, delivery, ids.delivery, digest, now),
            now=now,
        )
        return _conclude(connection, ids.delivery, "signal", followed.reason, revocations=followed.revocations)
    if whose.trespassed is not None:
        return _conclude(connection, ids.delivery, "refused", whose.refusal)
    if delivery.answer is not None and whose.tenant is not None:
        return _conclude(
            connection, ids.delivery, *signed_answers.count(connection, whose.tenant, delivery.answer, now=now)
        )
    if not matches:
        return _conclude(connection, ids.delivery, outcome, reason)
    if whose.tenant is None:
        return _conclude(connection, ids.delivery, "ignored", whose.refusal)
    started, reasons = start_jobs(connection, whose.tenant, delivery.connection, ids, matches, now=now)
    if not started:
        return _conclude(connection, ids.delivery, "ignored", "; ".join(reasons))
    return _conclude(
        connection,
        ids.delivery,
        "accepted",
        f"{len(started)} job(s)",
        jobs_=tuple(started),
        rung=first_bells(connection, whose.tenant, started.values()),
    )


def start_jobs(
    connection: Connection, tenant: str, through: str, ids: NewIds, matches: Sequence[Match], *, now: datetime
) -> tuple[dict[str, Workflow], list[str]]:
    """Accept a job for every match that the tenant has switched on: each with its workflow, and why not the others."""
    started: dict[str, Workflow] = {}
    reasons: list[str] = []
    for job, match in zip(ids.jobs, matches, strict=True):
        config = enabled_config(connection, tenant, match.workflow)
        if config is None:
            reasons.append(f"workflow {match.workflow.name} is not switched on for tenant {tenant}")
            continue
        user = match.user and resolve_alias(connection, tenant, match.user.provider, match.user.id)
        insert_job(
            connection,
            id=job,
            tenant=tenant,
            workflow=match.workflow,
            user=user or None,
            triggered_by=match.triggered_by,
            event=match.event.model_dump(mode="json"),
            config=config,
            delivery=ids.delivery,
            source_connection=through,
            now=now,
        )
        started[job] = match.workflow
    return started, reasons


def first_bells(connection: Connection, tenant: str, workflows: Iterable[Workflow]) -> tuple[Bell, ...]:
    """The bells of jobs of these workflows that were accepted just now."""
    rung: list[Bell] = []
    for pattern in sorted({str(workflow.pattern) for workflow in workflows}):
        rung += bells.ring_due(connection, tenant, pattern, share=bells.FIRST_SHARE)
    return tuple(rung)


def enabled_config(connection: Connection, tenant: str, workflow: Workflow) -> Mapping[str, Any] | None:
    """The tenant's configuration of a workflow, or None where it is not switched on."""
    row = {"tenant": tenant, "name": workflow.name}
    config: Mapping[str, Any] | None = connection.execute(_ENABLED, row).scalar_one_or_none()
    return config


def insert_job(
    connection: Connection,
    *,
    id: str,
    tenant: str,
    workflow: Workflow,
    user: str | None,
    triggered_by: str | None,
    event: Mapping[str, Any],
    config: Mapping[str, Any],
    delivery: str | None,
    source_connection: str | None,
    now: datetime,
    request: str | None = None,
) -> None:
    """Accept one job: its ledger number decides what a revocation may still stop."""
    digest = sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    pinned = insert_or(connection, pinned_configuration).on_conflict_do_nothing(index_elements=["sha256"])
    connection.execute(pinned, {"sha256": digest, "document": config})
    ensure_agent(connection, id=workflow.agent, tenant=None, name=workflow.agent, now=now)
    connection.execute(
        _INSERT_JOB,
        {
            "id": id,
            "tenant_id": tenant,
            "agent_id": workflow.agent,
            "delivery_id": delivery,
            "request_id": request,
            "connection_id": source_connection,
            "workflow": workflow.name,
            "pattern": workflow.pattern,
            "user_id": user,
            "triggered_by": triggered_by,
            "event": event,
            "config_sha256": digest,
            "scopes_sha256": scope_sets.share(connection, tenant, workflow, user),
            "state": JobState.QUEUED,
            "accepted": next_number(connection),
            "due_at": now,
            "fence": 0,
            "runs_spent": 0,
            "created_at": now,
        },
    )


def _first_of_body(connection: Connection, delivery: SignedDelivery, id: str, digest: str, now: datetime) -> bool:
    row = {"connection_id": delivery.connection, "body_sha256": digest, "delivery_id": id, "seen_at": now}
    statement = insert_or(connection, delivery_bodies)
    statement = statement.on_conflict_do_update(
        index_elements=["connection_id", "body_sha256"],
        set_={"delivery_id": statement.excluded.delivery_id, "seen_at": statement.excluded.seen_at},
        where=delivery_bodies.c.seen_at < now - BODY_WINDOW,
    )
    return connection.execute(statement.returning(delivery_bodies.c.delivery_id), row).one_or_none() is not None


def _duplicate(connection: Connection, which: Any, through: str) -> Acceptance:
    first = connection.execute(
        select(deliveries.c.id).where(deliveries.c.connection_id == through, which)
    ).scalar_one_or_none()
    started = (
        connection.execute(select(jobs.c.id).where(jobs.c.delivery_id == first).order_by(jobs.c.id)).scalars().all()
    )
    return Acceptance(
        delivery=first or "", outcome="duplicate", reason="this delivery was accepted before", jobs=tuple(started)
    )


def _conclude(
    connection: Connection,
    delivery: str,
    outcome: str,
    reason: str,
    *,
    jobs_: tuple[str, ...] = (),
    revocations: tuple[str, ...] = (),
    rung: tuple[Bell, ...] = (),
) -> Acceptance:
    connection.execute(_CONCLUDE, {"delivery": delivery, "outcome": outcome, "reason": reason})
    return Acceptance(
        delivery=delivery, outcome=outcome, reason=reason, jobs=jobs_, revocations=revocations, bells=rung
    )
