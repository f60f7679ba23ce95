"""Recognising a delivery that was accepted before, by its id or its body."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import ColumnElement, Connection, bindparam, delete, select

from identity.sql.prepared import Prepared
from identity.sql.rows import insert_for
from pipeline.model import Acceptance, DeliveryOutcome, SignedDelivery
from pipeline.revocation import signal_chunks
from pipeline.tables import deliveries, delivery_bodies, jobs

BODY_WINDOW = timedelta(days=3)  # as long as GitHub redelivers


def remember_body(connection: Connection, delivery: SignedDelivery, id: str, digest: str, now: datetime) -> bool:
    """Remember this body. True if it is the first within the window."""
    row = {"connection_id": delivery.connection, "body_sha256": digest, "delivery_id": id, "seen_at": now}
    taken = _take_body(connection.dialect.name).run(connection, {**row, "window": now - BODY_WINDOW})
    return taken.one_or_none() is not None


def same_id(connection: Connection, delivery: SignedDelivery) -> Acceptance:
    """Answer with the first delivery that had this id."""
    return _duplicate(connection, deliveries.c.delivery_id == delivery.delivery_id, delivery.connection)


def same_body(connection: Connection, delivery: SignedDelivery, id: str, digest: str) -> Acceptance:
    """Delete the row just stored, and answer with the first delivery that had this body."""
    connection.execute(delete(deliveries).where(deliveries.c.id == id))
    first = select(delivery_bodies.c.delivery_id).where(
        delivery_bodies.c.connection_id == delivery.connection, delivery_bodies.c.body_sha256 == digest
    )
    return _duplicate(connection, deliveries.c.id == first.scalar_subquery(), delivery.connection)


def _duplicate(connection: Connection, which: ColumnElement[bool], through: str) -> Acceptance:
    first = connection.execute(
        select(deliveries.c.id).where(deliveries.c.connection_id == through, which)
    ).scalar_one_or_none()
    started = connection.scalars(select(jobs.c.id).where(jobs.c.delivery_id == first).order_by(jobs.c.id)).all()
    return Acceptance(
        delivery=first or "",
        outcome=DeliveryOutcome.DUPLICATE,
        reason="this delivery was accepted before",
        jobs=tuple(started),
        unfollowed=first is not None and signal_chunks.is_unfollowed(connection, first),
    )


@cache
def _take_body(dialect: str) -> Prepared:
    """Insert the guard row, or take over one older than `window`. Returns no row if a newer one exists."""
    statement = insert_for(dialect, delivery_bodies)
    taken = statement.on_conflict_do_update(
        index_elements=["connection_id", "body_sha256"],
        set_={"delivery_id": statement.excluded.delivery_id, "seen_at": statement.excluded.seen_at},
        where=delivery_bodies.c.seen_at < bindparam("window"),
    )
    return Prepared(taken.returning(delivery_bodies.c.delivery_id))
