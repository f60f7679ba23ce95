"""How often a run turns to the ledger: each transaction is a turn in line, and round trips where a server has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection

from pipeline.db.database import Database
from pipeline.jobs.intents import Opened
from pipeline.run import Run
from tests.ledger.acts import open_
from tests.ledger.house import House, Say, intent_of
from tests.ledger.plans import statements_of
from tests.ledger.workers import Workers, declare

T = TypeVar("T")
CALLS = 3


class Counted:
    """A ledger that counts what is asked of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.engine, self.in_commit = database.engine, database.in_commit
        self.asked: Counter[str] = Counter()

    def write(self, fn: Callable[[Connection], T], *, until: float | None = None, ahead: bool = False) -> T:
        self.asked["write"] += 1
        return self._database.write(fn, until=until, ahead=ahead)

    def read(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
        self.asked["read"] += 1
        return self._database.read(fn, ahead=ahead)

    def check_fit(self) -> None:
        self._database.check_fit()

    def close(self) -> None:
        self._database.close()


def says_thrice(run: Run[Any], event: Any) -> None:
    for number in range(CALLS):
        run.do(Say(text=str(number)), as_=run.user)


def test_a_first_run_reads_once_and_writes_twice_a_step_and_twice_beside(workers: Workers) -> None:
    declare(workers, says_thrice)
    job = workers.house.job()
    workers.house.database = counted = Counted(workers.house.database)
    workers.work(job)
    assert len(workers.tokens) == CALLS
    assert counted.asked == {"read": 1, "write": 2 * CALLS + 2}


def test_a_live_token_is_leased_by_one_select_of_the_opening_transaction(house: House) -> None:
    """Without Redis: the function has nothing but its connection."""
    house.connect("acme", "acme.ada")
    asked = intent_of(house, house.claim(house.job()))
    opened: list[object] = []
    said = statements_of(lambda: opened.append(open_(house, asked)))
    assert [type(one) for one in opened] == [Opened]
    assert sum("FROM" in one and "grants" in one for one, _ in said) == 1, said
