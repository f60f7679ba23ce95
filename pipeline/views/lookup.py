"""Lookups of objects named by another id than their page's, each by an index."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from identity.model import Scope
from identity.tables import provider_connections
from pipeline.ledger.paging import Record, rows_of
from pipeline.revocation.tables import is_of_any, revocations
from pipeline.tables import attempts, deliveries, jobs, steps


@dataclass(frozen=True, kw_only=True)
class Found:
    """An object's id and its tenant; None: the platform's, or nobody's."""

    id: str
    tenant: str | None


def job_of_step(connection: Connection, step: str) -> Found | None:
    """Return the job of a step."""
    found = select(jobs.c.id, jobs.c.tenant_id).join(steps, steps.c.job_id == jobs.c.id).where(steps.c.id == step)
    row = connection.execute(found).one_or_none()
    return None if row is None else Found(id=row.id, tenant=row.tenant_id)


def step_of_attempt(connection: Connection, attempt: str) -> str | None:
    """Return the step of an attempt."""
    return connection.execute(select(attempts.c.step_id).where(attempts.c.id == attempt)).scalar_one_or_none()


def tenant_of_connection(connection: Connection, id: str) -> Found | None:
    """Return the provider connection with that id."""
    columns = provider_connections.c
    row = connection.execute(select(columns.id, columns.tenant_id).where(columns.id == id)).one_or_none()
    return None if row is None else Found(id=row.id, tenant=row.tenant_id)


def deliveries_of_sender(connection: Connection, sent_as: str) -> list[Found]:
    """Return the deliveries to which a sender gave this id, through any connection."""
    columns = deliveries.c
    # The index starts with the connection, so the query names each.
    through = columns.connection_id.in_(select(provider_connections.c.id))
    found = select(columns.id, columns.tenant_id).where(through, columns.delivery_id == sent_as)
    rows = connection.execute(found.order_by(columns.received_at.desc(), columns.id))
    return [Found(id=row.id, tenant=row.tenant_id) for row in rows]


def first_revocation(connection: Connection, scopes: Collection[Scope], *, since: int) -> Record | None:
    """Return the first revocation of any of these scopes, from ledger number *since*."""
    columns = revocations.c
    told = select(columns.id, columns.tenant_id, columns.requested_by, columns.effective_at)
    found = rows_of(
        connection, told.where(is_of_any(scopes), columns.number >= since).order_by(columns.number).limit(1)
    )
    return found[0] if found else None
