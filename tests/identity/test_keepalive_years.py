"""Two simulated years of keep-alive: nobody expires together, nobody is asked too often, nobody dies of idleness."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.identity.stores import EngineStore, open_store
from tests.identity.years import IDLE_LIMIT, Years
from tests.ledgers import MOSTLY_SQLITE

YEARS = timedelta(days=730)


def live(years: Years, *, tick: timedelta, idle_tick: timedelta) -> None:
    """Most of a day of use, a day in which housekeeping stands still, half a day of use, and two years of nothing."""
    together = [years.expiring_together() for _ in years.use_for(timedelta(hours=18), tick=tick)]
    assert together[0] > 0.2  # they come as four herds
    assert max(together[len(together) // 2 :]) < 0.15
    years.clock.advance(timedelta(days=1))
    for _ in years.use_for(timedelta(hours=12), tick=tick):
        pass
    years.provider.asked.clear()
    years.leave_alone(YEARS, tick=idle_tick)
    assert years.neglected() == []
    # One refresh ahead may be left from the use before; then no more than the idle limit asks for.
    assert max(years.provider.asked.values()) <= 1 + YEARS / (0.6 * IDLE_LIMIT)
    assert min(years.provider.asked.values()) >= YEARS // IDLE_LIMIT


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[EngineStore]:
    opened = open_store(ledger_url)
    yield opened
    opened.engine.dispose()


@MOSTLY_SQLITE
def test_two_years_of_a_few_grants(ledger: EngineStore) -> None:
    live(Years(store=ledger, number=20), tick=timedelta(minutes=5), idle_tick=timedelta(days=2))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_two_years_of_ten_thousand_grants(ledger: EngineStore) -> None:
    live(Years(store=ledger, number=10_000), tick=timedelta(minutes=5), idle_tick=timedelta(hours=6))
