"""What an idempotency key stands for, when it is forgotten while it comes again."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, select

from identity.agents.api_keys import Caller, Role
from pipeline.agents_api.requests import Asked, made_by_key
from pipeline.tables import idempotency_keys
from tests.ledger.acts import listening
from tests.ledger.house import House
from tests.ledgers import open_ledger


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_key_that_is_forgotten_as_it_comes_again_stands_for_the_new_request(house: House, ledger_url: str) -> None:
    """It is there for the insert, and gone for the read that follows. SQLite has one writer anyway."""
    agent = house.row(house.job()).agent_id
    caller = Caller(key="k", tenant="acme", agent=agent, role=Role.AGENT, tools=None, users=None)
    ask = partial(Asked, caller=caller, idempotency_key="once", request_hash="", now=datetime.now(UTC))
    housekeeping = open_ledger(ledger_url)
    forgotten: list[int] = []

    def forget(_c: Any, _cursor: Any, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT INTO idempotency_keys") and not forgotten:
            forgotten.append(housekeeping.write(lambda c: c.execute(delete(idempotency_keys)).rowcount))

    assert house.database.write(lambda c: made_by_key(c, ask(id="job_1"))) == "job_1"
    with listening(house.database.engine, "after_cursor_execute", forget):
        assert house.database.write(lambda c: made_by_key(c, ask(id="job_2"))) == "job_2"
    housekeeping.close()
    assert forgotten == [1]
    kept = select(idempotency_keys.c.made_id)
    assert house.database.read(lambda c: c.execute(kept).scalars().all()) == ["job_2"]
