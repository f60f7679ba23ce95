"""Keep-alive among many grants: what is due is found and claimed by an index."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text, update

from identity.refresh.keepalive_ledger import behind, claim
from identity.refresh.keepalive_plan import IDLE, IN_USE
from identity.tables import accounts, grants, principals
from tests.ledger.house import House
from tests.ledger.plans import plans, plans_of
from tests.ledgers import MOSTLY_SQLITE

pytestmark = pytest.mark.as_owner

ROWS, DUE_EVERY = 5_000, 500  # ten are due, five of each rank
WHOLE = ("SCAN", "Seq Scan on")  # in SQLite's words, and in PostgreSQL's
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def _fill(connection: Connection) -> None:
    connection.execute(update(grants).values(keepalive_due=None))  # the house's own are nobody's business here
    ids = [f"p-{number}" for number in range(ROWS)]
    person: dict[str, Any] = {"tenant_id": "acme", "kind": "user", "created_at": NOW}
    connection.execute(insert(principals), [person | {"id": id, "name": id} for id in ids])
    account = {
        "tenant_id": "acme", "connection_id": "gh", "provider": "github", "credential": "authorization_code",
        "state": "active", "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    connection.execute(insert(accounts), [account | {"id": id, "principal_id": id} for id in ids])
    grant = {"generation": 1, "consented": 1, "token_type": "bearer", "scopes": [], "obtained_at": NOW}
    connection.execute(insert(grants), [grant | {"account_id": id} | _due(number) for number, id in enumerate(ids)])
    connection.execute(text("analyze"))


def _due(number: int) -> dict[str, Any]:
    due = number % DUE_EVERY == 0
    when = NOW - timedelta(minutes=number) if due else NOW + timedelta(minutes=1 + number)
    return {"keepalive_due": when, "keepalive_rank": IN_USE if number // DUE_EVERY % 2 else IDLE}


@pytest.fixture
def many(house: House) -> House:
    house.database.write(_fill)
    return house


@MOSTLY_SQLITE
def test_what_is_due_is_found_and_claimed_by_its_index_whatever_else_there_is(many: House) -> None:
    take = partial(claim, now=NOW, until=NOW, limit=200)  # a claim that has lapsed: what was due stays due
    for told in (
        plans(many.database, partial(behind, now=NOW), large=True),
        plans_of(many.database, lambda: many.database.write(take), large=True),
    ):
        of_grants = [plan for plan in told if "grants" in plan]
        assert len(of_grants) == 2  # one of each rank
        for plan in of_grants:
            assert "ix_grants_keepalive" in plan, plan
            assert not any(f"{scan} grants" in plan for scan in WHOLE), plan
