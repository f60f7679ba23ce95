"""Reads of tenants' rows, as pages or single rows, one mapping each. Pages are newest first, except schedules.

Shared by the console, the API and the command line. A row is found only among its reader's `Tenants`. Nothing here
reads a sealed column.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, exists, false, func, or_, select

from identity.accounts.scopes import is_revoked
from identity.accounts.states import is_account
from identity.model import AccountState
from identity.tables import accounts, connection_secrets, grants, principals, provider_connections
from identity.tenants import Tenants
from identity.withdrawals.tables import withdrawals
from pipeline.authoring.tool_workflows import workflows_of_tool
from pipeline.batches import in_batches
from pipeline.ledger.indexed import NOT_TAKEN, STUCK, TROUBLED, UNANSWERED, in_state
from pipeline.ledger.paging import Page, Record, Turn, equal, page_of, rows_of
from pipeline.model import DeliveryOutcome, LeftOut
from pipeline.revocation.tables import revocations
from pipeline.states import CUT_SHORT, JobState, Wait
from pipeline.tables import IS_CLAIMED, attempts, deliveries, jobs, schedules, steps

_STATES = frozenset(JobState)
_DELIVERY = [column for column in deliveries.c if column.name != "body"]
_MARKED = deliveries.c.left_out == LeftOut.MISREAD
_REVOCATION = [column for column in revocations.c if column.name not in ("calls", "receipt", "signature")]
_WHOM = (principals.c.name.label("principal"), principals.c.kind.label("kind"))
_SCHEDULE = select(schedules).where(schedules.c.removed_at.is_(None))


#: The connected accounts, each with its principal and its grant, without sealed columns.
ACCOUNTS = (
    select(
        accounts,
        *_WHOM,
        grants.c.generation,
        grants.c.scopes,
        grants.c.obtained_at,
        grants.c.expires_at,
        grants.c.consented,
        grants.c.used_at,
        grants.c.keepalive_due,
        grants.c.keepalive_failures,
        grants.c.keepalive_error,
    )
    .join(principals, principals.c.id == accounts.c.principal_id)
    .outerjoin(grants, grants.c.account_id == accounts.c.id)
)

#: The steps, each with the principal it runs as.
STEPS = select(steps, *_WHOM).outerjoin(principals, principals.c.id == steps.c.principal_id)


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """The criteria of a page of jobs; None matches everything."""

    state: str | None = None
    agent: str | None = None
    workflow: str | None = None
    tool: str | None = None  # that they carry out, as any principal
    pattern: str | None = None
    user: str | None = None
    wait: str | None = None  # `unknown`: also ended jobs with a call that only a person can settle
    since: datetime | None = None
    until: datetime | None = None


def jobs_page(connection: Connection, tenants: Tenants, turn: Turn, wanted: JobFilter = JobFilter()) -> Page:
    """Return a page of jobs. States and waits have an index; the other criteria are applied to a stretch."""
    period = _between(jobs.c.created_at, wanted.since, wanted.until)
    statement = select(jobs).where(tenants.among(jobs), *period)
    state, wait = wanted.state, wanted.wait
    if state in (JobState.RUNNING, JobState.STOPPING):
        statement = statement.where(jobs.c.id.in_(_claimed(connection, state)))
    elif state is not None:
        statement = statement.where(in_state(state) if state in _STATES else false())
    if wait == Wait.UNKNOWN:
        statement = statement.where(jobs.c.id.in_(UNANSWERED.with_only_columns(attempts.c.job_id)))
        wait = None
    elif wait is not None and state is None:  # no other state has a wait
        statement = statement.where(in_state(JobState.WAITING))
    equals = equal(
        agent_id=wanted.agent, workflow=wanted.workflow, pattern=wanted.pattern, user_id=wanted.user, wait=wait
    )
    workflows = None if wanted.tool is None else workflows_of_tool(wanted.tool)

    def also(columns: Any) -> Sequence[ColumnElement[bool]]:
        return [*equals(columns), *([] if workflows is None else [columns.workflow.in_(workflows)])]

    return page_of(connection, statement, turn, at=jobs.c.created_at, id=jobs.c.id, also=also)


def _claimed(connection: Connection, state: str) -> list[str]:
    """Return the jobs that workers hold. They are few, so their ids are looked up first."""
    found = select(jobs.c.id, jobs.c.state).where(IS_CLAIMED)
    return [row.id for row in connection.execute(found) if row.state == state]


def job(connection: Connection, tenants: Tenants, id: str, *, agent: str | None = None) -> Record | None:
    """Return one job with its steps in order, each with its principal and attempts."""
    which = (jobs.c.id == id) & tenants.among(jobs)
    if agent is not None:
        which &= jobs.c.agent_id == agent
    found = _one(connection, select(jobs).where(which))
    return None if found is None else {**found, "steps": steps_of(connection, id)}


def steps_of(connection: Connection, job: str) -> list[Record]:
    """Return the steps of a job in order, each with its principal and attempts."""
    found = rows_of(
        connection,
        STEPS.where(steps.c.job_id == job).order_by(steps.c.position),
    )
    of_job = select(attempts).join(steps, steps.c.id == attempts.c.step_id).where(steps.c.job_id == job)
    tries = rows_of(connection, of_job.order_by(attempts.c.opened))
    return [{**step, "attempts": [one for one in tries if one["step_id"] == step["id"]]} for step in found]


def job_state(connection: Connection, id: str) -> tuple[str, str | None]:
    """Return the state of a job and what it waits for, for callers that wait for its end."""
    row = connection.execute(select(jobs.c.state, jobs.c.wait).where(jobs.c.id == id)).one()
    return row.state, row.wait


def _usable(usable: bool | None) -> Select[Any]:
    """Return all accounts, or those that a step could use now, or the rest: as `pipeline.accounts.obstacles` decides.

    The row of an account does not change with a revocation, stop or pause above it.
    """
    if usable is None:
        return ACCOUNTS
    paused = exists().where(
        provider_connections.c.id == accounts.c.connection_id, provider_connections.c.paused_reason.is_not(None)
    )
    prohibited = is_revoked(accounts, func.coalesce(grants.c.consented, 0), or_stopped=True)
    is_usable = (accounts.c.state == AccountState.ACTIVE) & ~paused & ~prohibited
    return ACCOUNTS.where(is_usable if usable else ~is_usable)


def accounts_page(
    connection: Connection,
    tenants: Tenants,
    turn: Turn,
    *,
    state: str | None = None,
    provider: str | None = None,
    principal: str | None = None,
    usable: bool | None = None,
) -> Page:
    """Return a page of connected accounts, without their credentials."""
    statement = _usable(usable).where(tenants.among(accounts))
    if principal is not None:
        statement = statement.where(or_(accounts.c.principal_id == principal, principals.c.name == principal))
    if state in (AccountState.NEEDS_RECONNECT, AccountState.SUSPENDED):
        statement = statement.where(TROUBLED, accounts.c.state == state)
        state = None
    also = equal(state=state, provider=provider)
    return page_of(connection, statement, turn, at=accounts.c.created_at, id=accounts.c.id, also=also)


def accounts_by_whom(
    connection: Connection,
    tenants: Tenants,
    limit: int,
    *,
    state: str | None = None,
    provider: str | None = None,
    usable: bool | None = None,
) -> list[Record]:
    """Return the first connected accounts by tenant, provider connection and principal, without credentials."""
    columns = accounts.c
    wanted = equal(state=state, provider=provider)(columns)
    in_order = (columns.tenant_id, columns.connection_id, columns.principal_id)
    found = _usable(usable).where(tenants.among(accounts), *wanted)
    return rows_of(connection, found.order_by(*in_order).limit(limit))


def account(connection: Connection, tenants: Tenants, id: str) -> Record | None:
    """Return one connected account, by its id or by `tenant/connection/principal`."""
    return _one(connection, ACCOUNTS.where(is_account(id), tenants.among(accounts)))


def deliveries_page(
    connection: Connection,
    tenants: Tenants,
    turn: Turn,
    *,
    outcome: str | None = None,
    source: str | None = None,
    not_taken: bool = False,
    failed: bool = False,
    misread: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page:
    """Return a page of deliveries, without bodies. *not_taken*: only unrecognised or refused ones.

    *misread*: unrecognised ones, and those that a workflow could not read. *failed*: those two, refused ones, and those
    with a dead or cancelled job.
    """
    period = _between(deliveries.c.received_at, since, until)
    statement = select(*_DELIVERY).where(tenants.among(deliveries), *period)
    if not_taken:
        statement = statement.where(NOT_TAKEN)
    if failed:
        ended = (jobs.c.delivery_id == deliveries.c.id) & jobs.c.state.in_(sorted(CUT_SHORT))
        statement = statement.where(NOT_TAKEN | _MARKED | exists().where(ended).correlate(deliveries))
    if misread:
        statement = statement.where(_MARKED | (deliveries.c.outcome == DeliveryOutcome.UNRECOGNISED))
    also = equal(outcome=outcome, source=source)
    return page_of(connection, statement, turn, at=deliveries.c.received_at, id=deliveries.c.id, also=also)


def delivery(connection: Connection, tenants: Tenants, id: str) -> Record | None:
    """Return one delivery with its body, and the ids of its jobs."""
    found = _one(connection, select(deliveries).where(deliveries.c.id == id, tenants.among(deliveries)))
    if found is None:
        return None
    started = connection.execute(select(jobs.c.id).where(jobs.c.delivery_id == id).order_by(jobs.c.id))
    return {**found, "jobs": list(started.scalars())}


def jobs_of_delivery(connection: Connection, delivery: str) -> list[Record]:
    return rows_of(connection, select(jobs).where(jobs.c.delivery_id == delivery).order_by(jobs.c.id))


def revocations_page(
    connection: Connection,
    tenants: Tenants,
    turn: Turn,
    *,
    stuck: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page:
    """Return a page of revocations, without receipts; *stuck*: only those stuck at a provider."""
    period = _between(revocations.c.effective_at, since, until)
    statement = select(*_REVOCATION).where(tenants.among(revocations), *period)
    if stuck:
        statement = statement.where(revocations.c.id.in_(STUCK))
    return page_of(connection, statement, turn, at=revocations.c.effective_at, id=revocations.c.number)


def stuck_among(connection: Connection, ids: Collection[str]) -> frozenset[str]:
    """Return those of these revocations that are stuck at a provider."""
    return frozenset(connection.execute(STUCK.where(withdrawals.c.revocation_id.in_(ids))).scalars())


def revocation(connection: Connection, tenants: Tenants, id: str) -> Record | None:
    """Return one revocation, with its receipt once it is quiesced."""
    return _one(connection, select(revocations).where(revocations.c.id == id, tenants.among(revocations)))


def schedules_page(connection: Connection, tenants: Tenants, turn: Turn) -> Page:
    """Return a page of schedules, next to fire first. One that fires between two pages is repeated; none is missed."""
    statement = _SCHEDULE.where(tenants.among(schedules))
    return page_of(connection, statement, turn, at=schedules.c.next_at, id=schedules.c.id, soonest_first=True)


def schedule(connection: Connection, tenants: Tenants, id: str) -> Record | None:
    return _one(connection, _SCHEDULE.where(schedules.c.id == id, tenants.among(schedules)))


def connections_page(connection: Connection, tenants: Tenants, turn: Turn) -> Page:
    """Return a page of provider connections, each with the names of its live secrets; of a tenant, only its own."""
    columns = provider_connections.c
    statement = select(provider_connections).where(tenants.among(provider_connections))
    page = page_of(connection, statement, turn, at=columns.created_at, id=columns.id)
    secrets, names = connection_secrets.c, dict[str, list[str]]()
    for ids in in_batches([row["id"] for row in page.rows]):
        live = select(secrets.connection_id, secrets.name).where(
            secrets.connection_id.in_(ids), secrets.retired_at.is_(None)
        )
        for owner, name in connection.execute(live.order_by(secrets.name)):
            names.setdefault(owner, []).append(name)
    return replace(page, rows=[{**row, "secrets": names.get(row["id"], [])} for row in page.rows])


def _between(at: Column[Any], since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    """Return conditions for the interval [since, until) of the column a list is ordered by: its index ends there."""
    return [*([] if since is None else [at >= since]), *([] if until is None else [at < until])]


def _one(connection: Connection, statement: Select[Any]) -> Record | None:
    found = rows_of(connection, statement)
    return found[0] if found else None
