"""What an acceptance asks of the ledger: few statements, and a bell of its own unless an older job waits for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, event, update

from pipeline.db.database import Database
from pipeline.duties import reconcile
from pipeline.jobs import bells
from pipeline.tables import jobs
from tests.ledger.house import House
from tests.webhooks.parts import MemoryRing


@contextmanager
def statements() -> Iterator[list[str]]:
    """What every engine is asked meanwhile."""
    heard: list[str] = []

    def hear(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        heard.append(statement)

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        event.remove(Engine, "before_cursor_execute", hear)


def test_an_acceptance_is_as_many_statements_as_the_documents_say(house: House) -> None:
    house.job()  # stores what jobs of its kind share
    with statements() as heard:
        house.job()
    assert len(heard) == (6 if house.database.engine.dialect.name == "postgresql" else 7), heard


def _change(database: Database, **values: Any) -> None:
    database.write(lambda c: c.execute(update(jobs).values(**values)).rowcount)


def test_a_job_is_accepted_with_its_bell(house: House) -> None:
    with statements() as heard:
        accepted = house.accept(house.delivery("one"))
    (bell,) = accepted.bells
    assert bell.rung_until is not None
    assert (bell.job,) == accepted.jobs
    assert bell.rung_until == house.row(bell.job).rung_until
    assert datetime.now(UTC) < bell.rung_until <= datetime.now(UTC) + bells.RINGS_FOR
    assert not [one for one in heard if one.startswith(("UPDATE jobs", "WITH due"))]


def test_an_older_job_without_a_bell_is_rung_for_before_the_new_one(house: House) -> None:
    older = house.job()
    _change(house.database, rung_until=None)
    newer = house.accept(house.delivery("newer", text="newer"))
    assert [bell.job for bell in newer.bells] == [older]
    rung = MemoryRing()
    reconcile.dispatch(house.database, rung, window=16)
    assert [bell.job for bell in rung.bells] == [*newer.jobs]
    rung.bells.clear()
    now = datetime.now(UTC)
    _change(house.database, rung_until=now - timedelta(seconds=1), due_at=now - timedelta(minutes=1))
    latest = house.accept(house.delivery("latest", text="latest"))
    assert latest.bells == ()  # those whose bell nobody answered come first, and are the dispatcher's
    reconcile.dispatch(house.database, rung, window=16)
    assert {bell.job for bell in rung.bells} == {older, *newer.jobs, *latest.jobs}


def test_a_tenant_has_no_more_bells_at_acceptance_than_its_share(house: House) -> None:
    share = bells.FIRST_SHARE
    rung = [house.accept(house.delivery(f"d{number}", text=f"d{number}")).bells for number in range(share + 3)]
    assert [len(one) for one in rung] == [1] * share + [0] * 3
    assert len(house.accept(house.delivery("other", tenant="globex")).bells) == 1


def test_a_job_accepted_by_a_clock_that_is_ahead_is_due_at_once_and_has_its_bell(house: House) -> None:
    """A worker that were told of it, and asked the ledger's clock, would find nothing to claim."""
    ahead = datetime.now(UTC) + timedelta(minutes=1)
    accepted = house.accept(house.delivery("early"), now=ahead)
    assert [bell.job for bell in accepted.bells] == [*accepted.jobs]
    assert house.row(accepted.jobs[0]).due_at < ahead
    house.claim(accepted.jobs[0])
