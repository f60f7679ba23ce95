"""Looking through the audit: by an index for what people know of a record, and every record once."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text

from identity.audit.tables import audit
from pipeline.db.database import Database
from pipeline.ledger.paging import Place, Turn
from pipeline.views import audit_queries
from pipeline.views.audit_queries import Search
from tests.ledger.plans import plans
from tests.ledgers import MOSTLY_SQLITE

pytestmark = [pytest.mark.as_owner, MOSTLY_SQLITE]

ROWS = 6_000


def _row(number: int) -> dict[str, Any]:
    """Of seven principals, who act for each other; one in a thousand is for anna."""
    return {
        "id": f"aud_{number:05}",
        "at": datetime(2026, 11, 24, tzinfo=UTC),
        "number": number // 3,  # some have the same, as the records of one transaction may
        "kind": "attempt.opened" if number % 2 else "attempt.closed",
        "tenant_id": f"tenant-{number % 5}",
        "agent_id": "rare" if number % 1_000 == 5 else f"agent-{number % 3}",
        "principal_id": None if number % 11 == 0 else f"p-{number % 7}",
        "on_behalf_of": "anna" if number % 1_000 == 5 else f"p-{number % 4}",
        "job_id": f"job_{number // 10}",
        "detail": {},
    }


@pytest.fixture
def kept(database: Database) -> Database:
    def fill(connection: Connection) -> None:
        connection.execute(insert(audit), [_row(number) for number in range(ROWS)])
        connection.execute(text("analyze"))

    database.write(fill)
    return database


def _everything(database: Database, search: Search, *, stretch: int | None) -> list[str]:
    """The ids of every page, one after the other."""
    found: list[str] = []
    after: Place | None = None
    while True:
        turn = Turn(limit=50, after=after, stretch=stretch)
        page = database.read(partial(audit_queries.page, search=search, turn=turn))
        found += [row["id"] for row in page.rows]
        after = page.next
        if after is None:
            return found


def _fits(search: Search, row: dict[str, Any]) -> bool:
    return (
        search.principal in (None, row["principal_id"], row["on_behalf_of"])
        and search.kind in (None, row["kind"])
        and search.tenant in (None, row["tenant_id"])
        and search.agent in (None, row["agent_id"])
        and search.job in (None, row["job_id"])
    )


@pytest.mark.parametrize("stretch", [None, 70])
def test_page_by_page_every_record_is_found_once_newest_first(kept: Database, stretch: int | None) -> None:
    rows = sorted(map(_row, range(ROWS)), key=lambda row: (row["number"], row["id"]), reverse=True)
    for search in (
        Search(principal="p-1"),
        Search(principal="p-1", kind="attempt.opened", tenant="tenant-2"),
        Search(principal="anna"),
        Search(agent="rare", tenant="tenant-0"),
        Search(job="job_7", principal="p-3"),
    ):
        expected = [row["id"] for row in rows if _fits(search, row)]
        assert _everything(kept, search, stretch=stretch) == expected, search


def test_where_a_page_of_a_tenants_records_ends_is_a_record_of_that_tenant(kept: Database) -> None:
    """Its id and number are in the address of the next page: another tenant's are nobody's business there."""
    tenants = {row["id"]: row["tenant_id"] for row in map(_row, range(ROWS))}
    for search in (
        Search(tenant="tenant-2", agent="agent-1", kind="attempt.opened"),
        Search(tenant="tenant-2", agent="rare"),
        Search(tenant="tenant-2", principal="p-1", kind="attempt.opened"),
        Search(tenant="tenant-2", job="job_7"),
        Search(tenant="tenant-2", action="none"),
    ):
        after: Place | None = None
        for _ in range(3):
            turn = Turn(limit=50, after=after, stretch=7)
            after = kept.read(partial(audit_queries.page, search=search, turn=turn)).next
            if after is None:
                break
            assert tenants[after.id] == "tenant-2", search


def test_what_people_know_of_a_record_is_found_by_an_index(kept: Database) -> None:
    of_principal = {"ix_audit_principal", "ix_audit_on_behalf_of"}
    for search, indices in (
        (Search(principal="anna"), of_principal),
        (Search(principal="anna", tenant="tenant-0", kind="attempt"), of_principal),
        (Search(agent="rare"), {"ix_audit_agent"}),
        (Search(job="job_7"), {"ix_audit_job"}),
    ):
        for read in (
            partial(audit_queries.page, search=search, turn=Turn(limit=50, stretch=10_000)),
            partial(audit_queries.found, search=search, limit=50),
        ):
            told = plans(kept, read, large=True)
            assert len(told) >= len(indices)
            assert all(any(index in plan for index in indices) for plan in told), told
