"""A list of jobs is read from its index in the order of the page, whatever lies behind the page."""

from __future__ import annotations

from functools import partial

import pytest

from pipeline.ledger.paging import Turn
from pipeline.ledger.views import jobs_page
from tests.bench.population import fill
from tests.ledger.house import House
from tests.ledger.plans import plans


@pytest.mark.slow
def test_the_newest_that_wait_are_read_and_not_all_that_wait_to_be_sorted(house: House, ledger_url: str) -> None:
    fill(ledger_url, 20_000)  # of tenant-3 everything waits
    # A page of fewer than PostgreSQL expects of this tenant, by the shares of all: then it pays to stop early.
    for tenant in (None, "tenant-3"):
        (plan,) = plans(house.database, partial(jobs_page, tenant=tenant, turn=Turn(limit=3), state="waiting"))
        assert not any(word in plan for word in ("Sort", "TEMP B-TREE")), plan
