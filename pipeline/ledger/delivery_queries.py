"""What operators ask of the ledger about deliveries."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, exists, func, or_, select

from pipeline.ledger.delivery_tenant import UNLISTED
from pipeline.ledger.meant import UNREACHED
from pipeline.ledger.paging import Record, rows_of
from pipeline.ledger.queries import one
from pipeline.model import DeliveryOutcome
from pipeline.states import JobState
from pipeline.tables import deliveries, jobs


def all_deliveries(
    connection: Connection,
    *,
    tenant: str | None = None,
    outcome: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    failed: bool = False,
    limit: int,
) -> list[Record]:
    """*failed*: nobody could read it, it was another tenant's, or a job of it is dead or cancelled."""
    columns = [column for column in deliveries.c if column.name != "body"]
    statement = select(*columns).order_by(deliveries.c.received_at.desc(), deliveries.c.id.desc()).limit(limit)
    if tenant:
        statement = statement.where(deliveries.c.tenant_id == tenant)
    if outcome:
        statement = statement.where(deliveries.c.outcome == outcome)
    if since:
        statement = statement.where(deliveries.c.received_at >= since)
    if until:
        statement = statement.where(deliveries.c.received_at < until)
    if failed:
        ended = (jobs.c.delivery_id == deliveries.c.id) & jobs.c.state.in_((JobState.DEAD, JobState.CANCELLED))
        statement = statement.where(
            deliveries.c.outcome.in_((DeliveryOutcome.UNRECOGNISED, DeliveryOutcome.REFUSED))
            | exists().where(ended).correlate(deliveries)
        )
    return rows_of(connection, statement)


_LOOKED_AT = 10_000  # of a busy installation, a few minutes: what lists wrongly leaves out something then, too


def left_out(connection: Connection, *, since: datetime) -> list[Record]:
    """Of the latest deliveries, those that came to nothing since what they name is not listed: how many, and why.

    That is what workflows wanted, and revocations.
    """
    latest = (
        select(deliveries.c.connection_id, deliveries.c.outcome, deliveries.c.reason)
        .where(deliveries.c.received_at >= since)
        .order_by(deliveries.c.received_at.desc(), deliveries.c.id.desc())
        .limit(_LOOKED_AT)
        .subquery()
    )
    found = (
        select(latest.c.connection_id, latest.c.reason, func.count().label("deliveries"))
        .where(
            or_(
                (latest.c.outcome == DeliveryOutcome.IGNORED) & latest.c.reason.contains(UNLISTED),
                (latest.c.outcome == DeliveryOutcome.SIGNAL) & latest.c.reason.contains(UNREACHED),
            )
        )
        .group_by(latest.c.connection_id, latest.c.reason)
        .order_by(func.count().desc(), latest.c.connection_id, latest.c.reason)
        .limit(20)
    )
    return rows_of(connection, found)


def delivery(connection: Connection, id: str) -> Record:
    """With its body and the ids of its jobs. Raises BadInput."""
    found = one(connection, deliveries, id, what="delivery", listed_by="deliveries list")
    started = connection.execute(select(jobs.c.id).where(jobs.c.delivery_id == id).order_by(jobs.c.id))
    return {**found, "jobs": list(started.scalars())}
