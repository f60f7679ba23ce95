"""How many sessions a process has at PostgreSQL, and which it gives back."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, TextClause, text

from pipeline.db.database import Database
from pipeline.db.postgresql import PostgresqlDatabase
from tests.ledger.writes import inserts, names_in
from tests.ledgers import open_ledger
from tests.waiting import eventually

pytestmark = [
    pytest.mark.as_owner,
    pytest.mark.usefixtures("database"),
    pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True),
]

_WHO = text("select pg_backend_pid()")
_THERE = text("select pid from pg_stat_activity where pid = any(:pids)")


def _of_each(ledger: Database, callers: int, asked: TextClause) -> list[Any]:
    """What the sessions answer that so many callers have at once."""
    together = threading.Barrier(callers)

    def meet(c: Connection) -> object:
        together.wait(60)
        return c.execute(asked).scalar_one()

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(ledger.read, [meet] * callers))


def _pids(ledger: Database, callers: int) -> set[int]:
    return set(_of_each(ledger, callers, _WHO))


def test_what_a_burst_has_opened_is_given_back_but_for_one_and_costs_nobody_a_failure(
    ledger_url: str, database: Database
) -> None:
    def there(pids: set[int]) -> set[int]:
        return set(database.read(lambda c: c.execute(_THERE, {"pids": [*pids]}).scalars().all()))

    idle = PostgresqlDatabase(ledger_url, given_back_after=timedelta(seconds=2))
    with closing(idle):
        first = _pids(idle, 1)
        burst = _pids(idle, 4)
        assert (len(burst), first < burst) == (4, True)
        eventually(lambda: there(burst) == first)
        assert first < (again := _pids(idle, 4))
        assert again & burst == first


def test_where_the_one_that_stays_is_lost_the_next_to_be_opened_stays(ledger_url: str, database: Database) -> None:
    end, timeout = text("select pg_terminate_backend(:pid, 5000)"), text("show idle_session_timeout")
    idle = PostgresqlDatabase(ledger_url, idle_after=timedelta(0))
    with closing(idle):
        (pid,) = _pids(idle, 1)
        assert database.read(lambda c: c.execute(end, {"pid": pid}).scalar_one())
        assert _of_each(idle, 1, timeout) == ["0"]
        assert sorted(_of_each(idle, 2, timeout)) == ["0", "5min"]


def test_where_the_one_that_stays_is_lost_while_nobody_uses_it_another_takes_its_place(
    ledger_url: str, database: Database
) -> None:
    end, timeout = text("select pg_terminate_backend(:pid, 5000)"), text("show idle_session_timeout")
    opened, first_is_back = threading.Event(), threading.Event()

    def come_back_later(_: Connection) -> None:
        opened.set()
        assert first_is_back.wait(60)

    def open_another(_: Connection) -> Future[None]:
        another = pool.submit(idle.read, come_back_later)
        assert opened.wait(60)
        return another

    idle = PostgresqlDatabase(ledger_url)
    with closing(idle), ThreadPoolExecutor(1) as pool:
        (pid,) = _pids(idle, 1)
        another = idle.read(open_another)
        first_is_back.set()
        another.result()
        assert _of_each(idle, 1, timeout) == ["5min"], "what came back last is used first"
        assert database.read(lambda c: c.execute(end, {"pid": pid}).scalar_one())
        eventually(lambda: _of_each(idle, 1, timeout) == ["0"])


def test_no_more_are_opened_than_may_be_and_writes_leave_two_to_what_goes_ahead(ledger_url: str) -> None:
    within, let_go = threading.Semaphore(0), threading.Event()

    def stay(_: Connection) -> None:
        within.release()
        let_go.wait(60)

    few = open_ledger(ledger_url, connections=4)
    with closing(few), ThreadPoolExecutor(3) as pool:
        staying = [pool.submit(few.write, stay) for _ in range(3)]
        try:
            for _ in range(2):
                assert within.acquire(timeout=60)
            assert not within.acquire(timeout=0.3)
            assert few.write(inserts("ahead"), ahead=True) == "ahead"
        finally:
            let_go.set()
        assert [one.result() for one in staying] == [None] * 3
        assert names_in(few) == {"ahead"}
