"""News of approvals: one that cannot be told holds no other back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, insert, select

from deploy.trial.trial import NoRing
from identity.errors import Unavailable
from identity.sql.store import Store
from pipeline.approvals.news import BATCH, tell_of_approvals
from pipeline.approvals.shown import Actor, Shown
from pipeline.approvals.tables import approvals
from pipeline.authoring.registry import Registry
from tests.ledger.approval_case import ApprovalCase
from tests.ledger.house import House

SHOWN = Shown(
    does="says hello",
    action="github.Say",
    provider="github",
    resource=None,
    amount=None,
    parameters={"text": "hello"},
    as_whom=Actor(id="acme.ada", name="ada", kind="user", pattern="delegated"),
    on_behalf_of=None,
    agent="tester",
    workflow="say_it",
    job="job_1",
    step=1,
    why="four eyes",
)

T = TypeVar("T")


def _told(house: House) -> dict[str, str | None]:
    rows = house.database.read(lambda c: c.execute(select(approvals.c.id, approvals.c.told_state)).all())
    return {row.id: row.told_state for row in rows}


def _bad(house: House, like: Any, number: int) -> None:
    """So many approvals that cannot be told, asked for before all others."""
    before = like.created_at - timedelta(hours=1)
    rows = [{**like._mapping, "id": f"bad_{n}", "needs": "of no shape", "created_at": before} for n in range(number)]
    house.database.write(lambda c: c.execute(insert(approvals), rows).rowcount)


@pytest.mark.parametrize("number", [1, BATCH])
def test_an_approval_that_cannot_be_told_holds_no_other_back_and_is_told_of(house: House, number: int) -> None:
    case = ApprovalCase(house)
    case.ask(shown=SHOWN.document)
    good = case.row
    _bad(house, good, number)
    with pytest.raises(ExceptionGroup, match="approvals that workflows could not be told of") as told:
        tell_of_approvals(house.database, Registry([]), NoRing(), now=datetime.now(UTC))
    assert len(told.value.exceptions) == number
    assert told.value.exceptions[0].__notes__ == ["approval bad_0"]
    assert _told(house) == {good.id: "open"} | {f"bad_{n}": None for n in range(number)}


class Away:
    """A ledger that can be read, and whose writer is stopped, after so many turns."""

    def __init__(self, ledger: Store, *, after: int = 0) -> None:
        self.read = ledger.read
        self.writes = 0
        self._ledger = ledger
        self._after = after

    def write(self, fn: Callable[[Connection], T]) -> T:
        self.writes += 1
        if self.writes <= self._after:
            return self._ledger.write(fn)
        raise Unavailable("no turn")


def test_a_ledger_without_a_turn_is_no_fault_of_the_approvals_and_is_asked_once(house: House) -> None:
    for _ in range(3):
        ApprovalCase(house).ask(shown=SHOWN.document)
    away = Away(house.database)
    with pytest.raises(Unavailable, match="no turn"):
        tell_of_approvals(away, Registry([]), NoRing(), now=datetime.now(UTC))
    assert away.writes == 1


def test_one_that_cannot_be_told_is_told_of_though_the_ledger_goes_away_after_it(house: House) -> None:
    case = ApprovalCase(house)
    case.ask(shown=SHOWN.document)
    _bad(house, case.row, 1)
    away = Away(house.database, after=1)
    with pytest.raises(ExceptionGroup, match="approvals that workflows could not be told of") as told:
        tell_of_approvals(away, Registry([]), NoRing(), now=datetime.now(UTC))
    assert told.value.exceptions[0].__notes__ == ["approval bad_0"]
    assert isinstance(told.value.exceptions[1], Unavailable)
