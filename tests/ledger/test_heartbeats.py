"""Heartbeats: dated by the ledger's clock, and forgotten where their host is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import select

from identity.keys.signing import Signer
from pipeline.duties.reconcile import heartbeat
from pipeline.duties.retention import Retention, prune
from pipeline.ledger.clock import ledger_now
from pipeline.model import BEAT
from pipeline.schedules.punctuality import look
from pipeline.tables import heartbeats
from pipeline.views.overview import overview
from tests.heartbeats import ticked
from tests.ledger.house import House

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SIGNER = Signer.from_seed(b"h" * 32)


def left(house: House) -> set[tuple[str, str]]:
    rows = house.database.read(lambda c: c.execute(select(heartbeats.c.duty, heartbeats.c.host)).all())
    return {(row.duty, row.host) for row in rows}


def test_a_host_whose_clock_is_ahead_hides_nothing_once_it_is_gone(house: House) -> None:
    ahead = datetime.now(UTC) + HOUR
    for duty in ("dispatch", BEAT):
        heartbeat(house.database, duty=duty, host="far", error=None, now=ahead)
    row = house.database.read(lambda c: c.execute(select(heartbeats).where(heartbeats.c.duty == BEAT)).one())
    now = house.database.read(ledger_now)
    assert now - timedelta(seconds=30) < row.at <= now
    assert row.host_at == ahead
    assert house.database.read(lambda c: look(c, now=now)).ticked_at == row.at


def test_what_is_late_is_so_by_the_ledgers_clock(house: House) -> None:
    now = house.database.read(ledger_now)
    ticked(house.database, "dispatch", at=now)
    ticked(house.database, "reclaim", at=now - HOUR)
    for away in (-DAY, DAY):  # the web's clock
        found = house.database.read(partial(overview, of=None, now=now + away))[None]
        assert found.duties == ("reclaim",)


def test_heartbeats_of_a_day_ago_are_forgotten_but_the_newest_of_each_duty_there_is(house: House) -> None:
    now = house.database.read(ledger_now)
    ticked(house.database, "dispatch", "reclaim", BEAT, "of old", at=now - 3 * DAY, host="first")
    ticked(house.database, "reclaim", BEAT, "of old", at=now - 2 * DAY, host="second")
    ticked(house.database, "dispatch", "of late", at=now - HOUR, host="third")
    forgotten = prune(house.database, Retention(), SIGNER, now=now, within=timedelta(minutes=1), chunk=2)
    assert forgotten["heartbeats"] == 5
    assert left(house) == {("dispatch", "third"), ("reclaim", "second"), (BEAT, "second"), ("of late", "third")}
