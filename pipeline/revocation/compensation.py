"""Compensations: jobs that undo the done steps of a cancelled job, as its workflow declares.

A compensation runs as the service of the provider connection it needs, under an agent of the platform. It needs both to
be unaffected by the revocation, and the workflow to be installed in the process that carries it out. Otherwise the
receipt says what was not compensated, and why. By a capability it needs no service account.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, delete, exists, insert, or_, select

from identity import audit
from identity.accounts import leases
from identity.accounts.scopes import revoked_since
from identity.agents.api_keys import people_behind
from identity.audit import AsWhom, Work
from identity.capability.audiences import of_connection
from identity.connections.registry import connection_for
from identity.errors import Misconfigured
from identity.model import Effect, LeaseOutcome, LeaseRequest, NeedsConsent, RuledOut, Scope
from identity.principals import service_principal
from identity.sql.sequence import lock_shared, next_number
from pipeline.authoring.declared_workflow import PLATFORM_AGENT, TOOL, Undone, Workflow
from pipeline.authoring.registry import Registry
from pipeline.batches import in_batches
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.operators import key_of_operator, names_of_revoker
from pipeline.revocation.declaration import Stage
from pipeline.revocation.tables import compensations, revocations
from pipeline.states import JobState, StepState
from pipeline.tables import jobs, steps

LOOKED_AT = 1_000  # jobs at a time


def compensable(connection: Connection, among: Iterable[str], *, workflows: Registry) -> list[str]:
    """Return the done steps of the cancelled jobs *among* these that have a compensation due.

    Includes steps of workflows that are not installed here, as their compensations are unknown.
    """
    actions = {action.action_name() for declared in workflows for action in declared.compensations}
    unknown = and_(
        jobs.c.workflow.not_in([declared.name for declared in workflows]),
        # tools declare no compensation, and neither do compensations
        ~jobs.c.workflow.startswith(TOOL, autoescape=True),
        jobs.c.agent_id != PLATFORM_AGENT,
        steps.c.action != "run.sleep",  # had no effect
    )
    found: list[str] = []
    # an adopted step's effect belongs to another job
    did = (steps.c.state == StepState.DONE) & steps.c.adopted_from.is_(None)
    for some in in_batches(list(among), LOOKED_AT):
        # Of very many queued jobs, hardly any have done something.
        of = connection.execute(select(steps.c.job_id).where(steps.c.job_id.in_(some), did).distinct()).scalars().all()
        if not of:
            continue
        statement = (
            select(steps.c.id)
            .join(jobs, jobs.c.id == steps.c.job_id)
            .where(
                steps.c.job_id.in_(of),
                jobs.c.state == JobState.CANCELLED,
                did,
                or_(steps.c.action.in_(actions), unknown),
                ~exists().where(compensations.c.step_id == steps.c.id),
            )
            .order_by(steps.c.job_id, steps.c.position)
        )
        found += connection.execute(statement).scalars().all()
    return found


def compensate_step(
    connection: Connection,
    step: str,
    *,
    revocation: str,
    workflows: Registry,
    job: str,
    audit_id: str,
    now: datetime,
) -> bool:
    """Accept the job that compensates a step, or record why there is none. False: there is nothing to do."""
    owner = select(jobs).join(steps, steps.c.job_id == jobs.c.id).where(steps.c.id == step)
    # Tenant, workflow and action never change, so they can be read before taking the locks they name.
    seen = connection.execute(owner.with_only_columns(jobs.c.tenant_id, jobs.c.workflow, steps.c.action)).one()
    declared = workflows.find(seen.workflow)
    wanted: _Wanted | str
    if declared is None:
        wanted = (
            f"{seen.workflow} is not installed where the revocation was carried out, so whether something is to follow "
            f"{seen.action} is not known"
        )
    elif any(one.action_name() == seen.action for one in declared.compensations):
        number = next_number(connection)
        wanted = _wanted(connection, declared, seen.action, tenant=seen.tenant_id, accepted=number, now=now)
    else:
        return False
    if isinstance(wanted, _Wanted):
        lock_shared(connection, wanted.lease.scope_list)
    # The job's lock keeps out a replay, which would make the effect wanted again. It comes after the locks of the
    # scopes: a replay by the API holds its tenant's before it waits for the job.
    of = connection.execute(owner.with_for_update(of=jobs)).one()
    again = select(compensations.c.step_id).where(compensations.c.step_id == step)
    if of.state != JobState.CANCELLED or connection.execute(again).first() is not None:
        return False
    done = connection.execute(select(steps).where(steps.c.id == step)).one()
    reason = wanted if isinstance(wanted, str) else _prohibition(connection, wanted, leases.examine, since=of.accepted)
    if declared is not None and reason is None:
        _accept(connection, declared, of, done, revocation=revocation, job=job, now=now)
    connection.execute(
        insert(compensations).values(
            step_id=step,
            revocation_id=revocation,
            job_id=job if reason is None else None,
            reason=reason,
            created_at=now,
        )
    )
    audit.record(
        connection,
        "compensation.accepted" if reason is None else "compensation.refused",
        AsWhom(tenant=of.tenant_id, agent=PLATFORM_AGENT),
        Work(job=of.id, step=step, action=done.action),
        id=audit_id,
        at=now,
        outcome="queued" if reason is None else "not compensated",
        reason=reason or f"{of.workflow} declares it",
        detail={"revocation": revocation, "by_job": job if reason is None else None},
    )
    return True


def foreseen(
    connection: Connection, declared: Workflow, action: str, *, tenant: str, without: Scope, now: datetime
) -> str | None:
    """Return why the effect of *action* could not be compensated if *without* were revoked now; None: it could."""
    wanted = _wanted(connection, declared, action, tenant=tenant, accepted=sys.maxsize, now=now)
    if isinstance(wanted, str):
        return wanted
    if without in wanted.lease.scope_list:
        return f"it would need the {without.kind} {without.key} itself"
    return _prohibition(connection, wanted, leases.look, since=sys.maxsize)


def forget_refused(connection: Connection, job: str) -> None:
    """Forget refused compensations of *job*, which is being replayed, so that a new cancellation looks again.

    A receipt already issued keeps its words. A reason that no receipt has told yet stays, because the receipt will tell
    it.
    """
    told = select(revocations.c.id).where(revocations.c.state == Stage.QUIESCED)
    of_it = compensations.c.step_id.in_(select(steps.c.id).where(steps.c.job_id == job))
    refused = compensations.c.job_id.is_(None) & compensations.c.revocation_id.in_(told)
    connection.execute(delete(compensations).where(of_it, refused))


def compensated_revocation(agent: str, event: Mapping[str, Any]) -> str | None:
    """Return the revocation whose receipt reports on this job, if the job is a compensation."""
    if agent != PLATFORM_AGENT:
        return None
    of: str = event["revocation"]
    return of


def _accept(
    connection: Connection,
    declared: Workflow,
    of: Row[Any],
    done: Row[Any],
    *,
    revocation: str,
    job: str,
    now: datetime,
) -> None:
    # None of them may approve it: neither who asked for what it compensates, nor who revoked.
    asked = select(revocations.c.requested_by, revocations.c.barred).where(revocations.c.id == revocation)
    by, barred = connection.execute(asked).one()
    if barred is None and (key := key_of_operator(by)) is not None:  # from before the people of a key were stored
        barred = people_behind(connection, key)
    # Not the key itself: `held_keys_only` is about keys that asked for a job, and this one asked for a revocation.
    revoker = names_of_revoker(by, barred)
    people = (of.user_id, of.triggered_by, of.triggered_login, *(of.replayed_by or ()), *revoker)
    event = Undone(
        revocation=revocation,
        job=of.id,
        step=done.id,
        action=done.action,
        parameters=done.parameters,
        result=done.result,
    )
    insert_job(
        connection,
        NewJob(
            id=job,
            tenant=of.tenant_id,
            workflow=declared.compensating,
            event=event.model_dump(mode="json"),
            config={},
            replayed_by=tuple(dict.fromkeys(name for name in people if name)),
        ),
        now=now,
    )


class _Wanted(NamedTuple):
    """The lease that a compensation needs; by a capability it needs none, and only the lease's scopes count."""

    lease: LeaseRequest
    by_capability: bool


def _wanted(
    connection: Connection, declared: Workflow, action: str, *, tenant: str, accepted: int, now: datetime
) -> _Wanted | str:
    """Return what the compensation of *action* needs, or why it cannot run."""
    (by,) = [how.by for of, how in declared.compensations.items() if of.action_name() == action]
    by_capability = by.facts.capability or by.facts.effect is Effect.HIGH_RISK
    try:
        through = connection_for(connection, tenant, by.facts.provider).id
        principal = service_principal(connection, tenant).id
    except Misconfigured as error:
        return str(error)
    if by_capability and of_connection(connection, through) is None:
        return (
            f"{by.action_name()} needs a capability token, and {by.facts.provider} is not known to take any: "
            "see `aswhom capability audiences add`"
        )
    lease = LeaseRequest(
        tenant=tenant,
        connection=through,
        agent=PLATFORM_AGENT,
        principal=principal,
        accepted=accepted,
        scopes=by.facts.scopes,
        refresh_early=False,
        now=now,
    )
    return _Wanted(lease, by_capability)


def _prohibition(
    connection: Connection, wanted: _Wanted, look: Callable[[Connection, LeaseRequest], LeaseOutcome], *, since: int
) -> str | None:
    """Return why the service may not compensate, or None. *since*: when the job to compensate was accepted.

    Asked by the rule, before accepting a job that could only wait.
    """
    request = wanted.lease
    if wanted.by_capability:
        # There is no grant that a revocation from before the compensation's own acceptance would have ended.
        ruled_out = revoked_since(connection, request.scope_list, since)
        return None if ruled_out is None else ruled_out.reason
    match look(connection, request):
        case RuledOut(reason=reason):
            return reason
        case NeedsConsent(state=state, missing_scopes=missing):
            lacking = f", and lacks {', '.join(missing)}" if missing else ""
            return f"the service account {request.account_key} is {state}{lacking}"
    return None
