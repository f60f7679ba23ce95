"""A stored delivery, replayed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import select

from identity.audit import Act
from pipeline.authoring.matching import Considered
from pipeline.authoring.registry import Registry
from pipeline.deliveries.replay import Replayed, replay
from pipeline.deliveries.weighing import Stored
from pipeline.tables import deliveries
from tests.ledger.house import House


def considered(house: House, text: str = "hello") -> list[Considered]:
    return Registry([house.workflow]).consider("github", "pull_request", {"author": "1001", "text": text})


def stored(house: House, id: str, *, installation: str = "installation-acme") -> Stored:
    known = select(deliveries.c.event, deliveries.c.delivery_id).where(deliveries.c.id == id)
    row = house.database.read(lambda c: c.execute(known).one())
    return Stored(id=id, connection="gh", event=row.event, delivery_id=row.delivery_id, installation=installation)


def replayed(
    house: House, delivery: Stored, *, by: Sequence[Considered] | None = None, cancelled: bool = False
) -> Replayed:
    """Replay it, as the command line does. *by*: what the workflows make of it."""
    by = considered(house) if by is None else by
    write = partial(
        replay,
        delivery=delivery,
        cancelled=cancelled,
        considered=by,
        installed=Registry([house.workflow]),
        new_jobs=[house.ids("job") for _ in by],
        act=Act(audit_id=house.ids("aud"), by="cli:test", now=datetime.now(UTC)),
    )
    return house.database.write(write)
