"""Pinned configurations: the tenant's at a job's acceptance, or at a replay that may take the new one."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Select, bindparam, exists, select

from identity.sql.prepared import Prepared
from identity.sql.rows import insert_unless_there
from pipeline.states import AttemptState, Purpose, StepState
from pipeline.tables import attempts, jobs, pinned_configuration, steps, workflow_settings


def enabled_of(workflow: str) -> Select[Any]:
    """Select what `enabled` reads, for a statement that binds the workflow and the `tenant`."""
    return select(workflow_settings.c.config).where(
        workflow_settings.c.tenant_id == bindparam("tenant"),
        workflow_settings.c.workflow == bindparam(workflow),
        workflow_settings.c.enabled,
    )


_ENABLED = Prepared(enabled_of("name"))


@dataclass(frozen=True, kw_only=True)
class Pin:
    """The configuration a replay runs with, and why the tenant's present one does not apply."""

    config: Mapping[str, Any]
    moved: bool  # it differs from what the job had
    unbound: bool  # nothing binds its function, so its steps may differ from the earlier ones
    kept: str = ""


def digest_of(config: Mapping[str, Any]) -> str:
    """Return the key of a configuration in `pinned_configuration`."""
    # Not `json_digest`, which uses no spaces: the stored digests include them.
    return sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def enabled(connection: Connection, tenant: str, workflow: str) -> Mapping[str, Any] | None:
    """Return the tenant's configuration of a workflow, or None if it is not enabled."""
    config: Mapping[str, Any] | None = _ENABLED.run(
        connection, {"tenant": tenant, "name": workflow}
    ).scalar_one_or_none()
    return config


def store(connection: Connection, config: Mapping[str, Any]) -> str:
    """Store a configuration to pin jobs to, and return its digest."""
    digest = digest_of(config)
    pinned = insert_unless_there(connection.dialect.name, pinned_configuration)
    connection.execute(pinned, {"sha256": digest, "document": config})
    return digest


def pinned(connection: Connection, job: str) -> Mapping[str, Any] | None:
    """Return the configuration pinned to a job; None: there is no such job."""
    of_job = select(pinned_configuration.c.document).join(jobs, jobs.c.config_sha256 == pinned_configuration.c.sha256)
    config: Mapping[str, Any] | None = connection.execute(of_job.where(jobs.c.id == job)).scalar_one_or_none()
    return config


def at_replay(connection: Connection, job: str, *, reads: Collection[str]) -> Pin:
    """Return the configuration for a replay of *job*: the present one if it had no effect, so that mending it helps.

    An effect that a step had, or may have had, followed the old configuration and the workflow as it was, and the
    function must do the same again up to there. The same holds for a job that reports the end of an approval: it
    reports to where that was asked for. *reads*: the names of the actions that only read.
    """
    row = connection.execute(
        select(jobs.c.tenant_id, jobs.c.workflow, jobs.c.event, pinned_configuration.c.document)
        .join(pinned_configuration, jobs.c.config_sha256 == pinned_configuration.c.sha256)
        .where(jobs.c.id == job)
    ).one()
    had, now = row.document, enabled(connection, row.tenant_id, row.workflow)
    moved = now is not None and digest_of(now) != digest_of(had)
    kept = ""
    if "approval" in row.event and row.event.get("asked"):  # an `ApprovalNews`, which says why
        kept = "it keeps the configuration under which the approval was asked for"
    elif binds(connection, job, reads=reads):
        kept = "it keeps the configuration it began with: a step of it had an effect, or may have had one"
    if kept:
        return Pin(config=had, moved=False, unbound=False, kept=kept if moved else "")
    return Pin(config=now if now is not None else had, moved=moved, unbound=True)


def binds(connection: Connection, job: str, *, reads: Collection[str]) -> bool:
    """True if any step of *job* had an effect, or may have had one. A sleep counts: some of it may have passed.

    A read counts only while a call of it has no answer: that would be held against another action in its place.
    """
    is_read = steps.c.action.in_(reads)
    done = ~is_read & steps.c.state.in_((StepState.DONE, StepState.UNKNOWN))
    unanswered = attempts.c.state.in_((AttemptState.OPEN, AttemptState.UNKNOWN))
    acted = ~is_read & (attempts.c.state != AttemptState.NO_EFFECT) & (attempts.c.purpose != Purpose.READ_BEFORE)
    sent = exists().where(attempts.c.step_id == steps.c.id, unanswered | acted)
    binds = done | sent | (steps.c.action == "run.sleep")
    return bool(connection.execute(select(exists().where(steps.c.job_id == job, binds))).scalar_one())
