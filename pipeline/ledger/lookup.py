"""Whose a thing is that somebody names by another id than its page's: plain reads, by an index each."""

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
    """A thing by its id, and whose it is; tenant None: the platform's, or nobody's."""

    id: str
    tenant: str | None


def job_of_step(connection: Connection, step: str) -> Found | None:
    """The job that a step is of."""
    found = select(jobs.c.id, jobs.c.tenant_id).join(steps, steps.c.job_id == jobs.c.id).where(steps.c.id == step)
    row = connection.execute(found).one_or_none()
    return None if row is None else Found(id=row.id, tenant=row.tenant_id)


def step_of_attempt(connection: Connection, attempt: str) -> str | None:
    """The step that an attempt is of."""
    return connection.execute(select(attempts.c.step_id).where(attempts.c.id == attempt)).scalar_one_or_none()


def tenant_of_connection(connection: Connection, id: str) -> Found | None:
    """The provider connection of that id."""
    columns = provider_connections.c
    row = connection.execute(select(columns.id, columns.tenant_id).where(columns.id == id)).one_or_none()
    return None if row is None else Found(id=row.id, tenant=row.tenant_id)


def deliveries_of_sender(connection: Connection, sent_as: str) -> list[Found]:
    """The deliveries that a sender gave this id, through whichever connections."""
    columns = deliveries.c
    # The index begins with the connection, so each is named.
    through = columns.connection_id.in_(select(provider_connections.c.id))
    found = select(columns.id, columns.tenant_id).where(through, columns.delivery_id == sent_as)
    rows = connection.execute(found.order_by(columns.received_at.desc(), columns.id))
    return [Found(id=row.id, tenant=row.tenant_id) for row in rows]


def first_revocation(connection: Connection, scopes: Collection[Scope], *, since: int) -> Record | None:
    """The first revocation of any of these at that ledger number or after it."""
    columns = revocations.c
    told = select(columns.id, columns.tenant_id, columns.requested_by, columns.effective_at)
    found = rows_of(
        connection, told.where(is_of_any(scopes), columns.number >= since).order_by(columns.number).limit(1)
    )
    return found[0] if found else None
