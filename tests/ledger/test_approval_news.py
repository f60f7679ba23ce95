"""News of approvals: one that cannot be told holds no other back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from pipeline.approval_news import BATCH, tell_of_approvals
from pipeline.approval_tables import approvals
from pipeline.shown import AsWhom, Shown
from pipeline.workflow import Registry
from tests.ledger.desk import Desk
from tests.ledger.house import House
from tests.system.rig import NoRing

SHOWN = Shown(
    does="says hello",
    action="github.Say",
    provider="github",
    resource=None,
    amount=None,
    parameters={"text": "hello"},
    as_whom=AsWhom(id="acme.ada", name="ada", kind="user", pattern="delegated"),
    on_behalf_of=None,
    agent="tester",
    workflow="say_it",
    job="job_1",
    step=1,
    why="four eyes",
)


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
    desk = Desk(house)
    desk.ask(shown=SHOWN.document)
    good = desk.row
    _bad(house, good, number)
    with pytest.raises(ExceptionGroup, match="approvals that workflows could not be told of") as told:
        tell_of_approvals(house.database, Registry([]), NoRing(), now=datetime.now(UTC))
    assert len(told.value.exceptions) == number
    assert told.value.exceptions[0].__notes__ == ["approval bad_0"]
    assert _told(house) == {good.id: "open"} | {f"bad_{n}": None for n in range(number)}
