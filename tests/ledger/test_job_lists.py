"""A list of jobs is read from its index in the order of the page, whatever lies behind the page."""

from __future__ import annotations

from functools import partial

import pytest

from pipeline.ledger.paging import Turn
from pipeline.views.tenant_views import jobs_page
from tests.bench.population import fill
from tests.ledger.house import House
from tests.ledger.plans import plans


@pytest.mark.slow
def test_the_newest_of_a_state_are_read_and_not_all_of_them_to_be_sorted(house: House, ledger_url: str) -> None:
    fill(ledger_url, 20_000)
    # All that are in such a state are one tenant's. A page of fewer than PostgreSQL expects of this tenant, by the
    # shares of all: then it pays to stop early.
    for state, whose in (("waiting", "tenant-3"), ("dead", "tenant-1"), ("cancelled", "tenant-2")):
        for tenant in (None, whose):
            (plan,) = plans(house.database, partial(jobs_page, tenant=tenant, turn=Turn(limit=1), state=state))
            assert not any(word in plan for word in ("Sort", "TEMP B-TREE")), plan
    for wait in ("consent", "time"):  # all that wait are in one state
        (plan,) = plans(house.database, partial(jobs_page, tenant=None, turn=Turn(limit=50), wait=wait))
        assert "ix_jobs_open" in plan or "ix_jobs_waiting" in plan, plan
