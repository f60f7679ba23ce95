"""What one tenant may see of the ledger, newest first and in pages: plain reads, a mapping a row.

Every function takes the tenant, and what is another's is not there. Nothing here reads a sealed column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, and_, or_, select

from identity.tables import accounts, grants, principals
from pipeline.revocation_tables import revocations
from pipeline.tables import attempts, deliveries, jobs, steps

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a page ended: what follows is older, or as old with a lower id."""

    at: datetime
    id: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some rows, and where to go on; None: these were the last."""

    rows: Sequence[Row]
    next: Place | None


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Which page is wanted."""

    limit: int
    after: Place | None = None


_JOB = [
    column
    for column in jobs.c
    if column.name not in ("config_sha256", "scopes_sha256", "rung_until", "claimed_until", "fence")
]
_DELIVERY = [column for column in deliveries.c if column.name not in ("body", "body_sha256")]
_REVOCATION = [column for column in revocations.c if column.name not in ("receipt", "signature")]
_ACCOUNT = (
    select(
        accounts,
        principals.c.name.label("principal"),
        principals.c.kind.label("kind"),
        grants.c.scopes,
        grants.c.expires_at,
        grants.c.consented,
    )
    .join(principals, principals.c.id == accounts.c.principal_id)
    .outerjoin(grants, grants.c.account_id == accounts.c.id)
)


def jobs_page(
    connection: Connection, tenant: str, turn: Turn, *, agent: str | None, state: str | None, workflow: str | None
) -> Page:
    """The jobs of a tenant; *agent*: of that agent alone."""
    statement = select(*_JOB).where(jobs.c.tenant_id == tenant)
    for column, wanted in ((jobs.c.agent_id, agent), (jobs.c.state, state), (jobs.c.workflow, workflow)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    return _page(connection, statement, turn, at=jobs.c.created_at, id=jobs.c.id)


def job(connection: Connection, tenant: str, id: str, *, agent: str | None) -> Row | None:
    """One job with its steps in order, each with who it ran as and how often it was tried."""
    which = (jobs.c.id == id) & (jobs.c.tenant_id == tenant)
    if agent is not None:
        which &= jobs.c.agent_id == agent
    found = _one(connection, select(*_JOB).where(which))
    return None if found is None else {**found, "steps": _steps(connection, id)}


def job_state(connection: Connection, id: str) -> tuple[str, str | None]:
    """The state of a job and what it waits for, for whoever waits for its end."""
    row = connection.execute(select(jobs.c.state, jobs.c.wait).where(jobs.c.id == id)).one()
    return row.state, row.wait


def _steps(connection: Connection, job: str) -> list[Row]:
    found = _all(
        connection,
        select(steps, principals.c.name.label("principal"), principals.c.kind.label("kind"))
        .outerjoin(principals, principals.c.id == steps.c.principal_id)
        .where(steps.c.job_id == job)
        .order_by(steps.c.position),
    )
    tries = _all(connection, select(attempts).where(attempts.c.job_id == job).order_by(attempts.c.opened))
    return [{**step, "attempts": [one for one in tries if one["step_id"] == step["id"]]} for step in found]


def accounts_page(
    connection: Connection, tenant: str, turn: Turn, *, state: str | None, provider: str | None, principal: str | None
) -> Page:
    """The connected accounts of a tenant, without their credentials."""
    statement = _ACCOUNT.where(accounts.c.tenant_id == tenant)
    for column, wanted in ((accounts.c.state, state), (accounts.c.provider, provider)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if principal is not None:
        statement = statement.where(or_(accounts.c.principal_id == principal, principals.c.name == principal))
    return _page(connection, statement, turn, at=accounts.c.created_at, id=accounts.c.id)


def account(connection: Connection, tenant: str, id: str) -> Row | None:
    """One connected account."""
    return _one(connection, _ACCOUNT.where(accounts.c.id == id, accounts.c.tenant_id == tenant))


def deliveries_page(connection: Connection, tenant: str, turn: Turn, *, outcome: str | None) -> Page:
    """The deliveries of a tenant, without their bodies."""
    statement = select(*_DELIVERY).where(deliveries.c.tenant_id == tenant)
    if outcome is not None:
        statement = statement.where(deliveries.c.outcome == outcome)
    return _page(connection, statement, turn, at=deliveries.c.received_at, id=deliveries.c.id)


def delivery(connection: Connection, tenant: str, id: str) -> Row | None:
    """One delivery, with the ids of its jobs."""
    which = (deliveries.c.id == id) & (deliveries.c.tenant_id == tenant)
    found = _one(connection, select(*_DELIVERY).where(which))
    if found is None:
        return None
    started = connection.execute(select(jobs.c.id).where(jobs.c.delivery_id == id).order_by(jobs.c.id))
    return {**found, "jobs": list(started.scalars())}


def revocations_page(connection: Connection, tenant: str, turn: Turn) -> Page:
    """The revocations of a tenant, without their receipts."""
    statement = select(*_REVOCATION).where(revocations.c.tenant_id == tenant)
    return _page(connection, statement, turn, at=revocations.c.effective_at, id=revocations.c.id)


def revocation(connection: Connection, tenant: str, id: str) -> Row | None:
    """One revocation, with its receipt once it is quiesced."""
    return _one(connection, select(revocations).where(revocations.c.id == id, revocations.c.tenant_id == tenant))


def _page(connection: Connection, statement: Select[Any], turn: Turn, *, at: Column[Any], id: Column[Any]) -> Page:
    if turn.after is not None:
        older: ColumnElement[bool] = or_(at < turn.after.at, and_(at == turn.after.at, id < turn.after.id))
        statement = statement.where(older)
    found = _all(connection, statement.order_by(at.desc(), id.desc()).limit(turn.limit + 1))
    rows = found[: turn.limit]
    more = len(found) > turn.limit
    return Page(rows=rows, next=Place(at=rows[-1][at.name], id=rows[-1][id.name]) if more else None)


def _all(connection: Connection, statement: Select[Any]) -> list[Row]:
    return [dict(row._mapping) for row in connection.execute(statement)]  # noqa: SLF001 - its documented name


def _one(connection: Connection, statement: Select[Any]) -> Row | None:
    found = _all(connection, statement)
    return found[0] if found else None
