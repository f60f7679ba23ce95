"""Bells that the broker did not take are outstanding no longer, so work goes on as soon as it is back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import update

from pipeline import reconcile
from pipeline.doorbells import Doorbells
from pipeline.ledger import bells
from pipeline.ring import CeleryRing
from pipeline.tables import jobs as jobs_table
from tests.celery.rig import eventually, publisher
from tests.ledger.house import House
from tests.servers.valkey import Valkey


@pytest.fixture
def doorbells(house: House, own_valkey: Valkey) -> Iterator[Doorbells]:
    with closing(CeleryRing(publisher(own_valkey.url))) as ring:
        yield Doorbells(house.database, ring)


def queued(valkey: Valkey) -> int:
    with valkey.client() as client:
        return int(client.llen("aswhom:hybrid"))


def test_a_bell_that_rang_stays_outstanding(house: House, doorbells: Doorbells, own_valkey: Valkey) -> None:
    accepted = house.accept(house.delivery("d1"))
    assert doorbells.jobs(accepted.bells)
    assert house.row(accepted.jobs[0]).rung_until == accepted.bells[0].rung_until is not None
    assert queued(own_valkey) == 1


def test_work_accepted_while_the_broker_was_away_is_rung_for_as_soon_as_it_is_back(
    house: House, doorbells: Doorbells, own_valkey: Valkey
) -> None:
    own_valkey.kill()
    accepted = house.accept(house.delivery("d1"))
    assert not doorbells.jobs(accepted.bells)
    assert house.row(accepted.jobs[0]).rung_until is None
    dispatch = partial(reconcile.dispatch, house.database, doorbells, window=64)
    dispatch()  # still away: taken back too
    assert house.row(accepted.jobs[0]).rung_until is None
    own_valkey.start()

    def heard() -> bool:
        dispatch()
        return queued(own_valkey) > 0

    # The longest pause between two trials is 5 s; a bell that was left outstanding is replaced after 30.
    eventually(heard, seconds=20, what="the dispatcher rang")
    assert house.row(accepted.jobs[0]).rung_until is not None


def test_a_bell_that_was_rung_anew_meanwhile_is_not_taken_back(house: House) -> None:
    accepted = house.accept(house.delivery("d1"))
    (job,), (bell,) = accepted.jobs, accepted.bells
    assert bell.rung_until is not None
    anew = bell.rung_until + timedelta(seconds=1)
    house.database.write(
        lambda c: c.execute(update(jobs_table).where(jobs_table.c.id == job).values(rung_until=anew)).rowcount
    )
    house.database.write(partial(bells.take_back, bells=accepted.bells))
    assert house.row(job).rung_until == anew
