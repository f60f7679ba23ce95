"""Waits: how those that are due are found among all that wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import insert, text

from pipeline.ledger import waits
from pipeline.states import JobState, Wait
from pipeline.tables import jobs as jobs_table
from tests.ledger.house import House
from tests.ledger.plans import plans


def _many(house: House, *, due: int) -> None:
    """Many that wait for long; of the last reasons, so many that are due, the newest first."""
    kept = dict(house.row(house.job())._mapping)
    now = datetime.now(UTC)

    def row(n: int, wait: Wait, due_in: timedelta) -> dict[str, object]:
        return {**kept, "id": f"w{n}", "state": JobState.WAITING, "wait": wait, "due_at": now + due_in}

    rows = [row(n, tuple(Wait)[n % len(Wait)], timedelta(days=1)) for n in range(3000)]
    rows += [row(9000 + n, (Wait.TIME, Wait.ONCE)[n % 2], -timedelta(minutes=1 + n)) for n in range(due)]
    house.database.write(lambda c: c.execute(insert(jobs_table), rows).rowcount)
    house.database.write(lambda c: c.execute(text("analyze")).rowcount)


def test_the_waits_that_are_due_for_longest_come_first_whatever_they_wait_for(house: House) -> None:
    _many(house, due=6)
    found = house.database.read(partial(waits.due_waits, limit=4))
    assert [row.id for row in found] == ["w9005", "w9004", "w9003", "w9002"]
    assert [row.wait for row in found] == [Wait.ONCE, Wait.TIME, Wait.ONCE, Wait.TIME]


def test_the_waits_that_are_due_are_looked_up_among_all_that_wait(house: House) -> None:
    _many(house, due=2)
    (plan,) = plans(house.database, partial(waits.due_waits, limit=200))
    found = [line for line in plan.splitlines() if "ix_jobs_waiting" in line]
    assert len(found) == len(Wait), plan
    if house.database.engine.dialect.name == "sqlite":
        assert all("(wait=? AND due_at<?)" in line for line in found), plan
        assert "SCAN jobs" not in plan
    else:
        looked_up = [line for line in plan.splitlines() if "Index Cond" in line]
        assert len(looked_up) == len(Wait), plan
        assert all("wait" in line and "due_at <=" in line for line in looked_up), plan
        assert "Seq Scan on jobs" not in plan
