"""The people and accounts of one tenant, in a migrated ledger on each database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from identity.http.client import Client
from pipeline.db.database import Database
from tests.identity.providers import pretend_provider
from tests.ledger.house import House
from tests.ledger.workers import Workers
from tests.ledger.writes import Act
from tests.waiting import PATIENCE


@pytest.fixture
def house(database: Database) -> House:
    """Tenant acme: service principal, ada, GitHub, and an active account for each."""
    built = House(database)
    built.build()
    return built


@pytest.fixture
def workers(house: House, http: Client) -> Iterator[Workers]:
    with pretend_provider() as provider:
        yield Workers(house, provider, http)


@pytest.fixture(params=["in the main thread", "in a thread of its own"])
def from_there(request: pytest.FixtureRequest) -> Iterator[Act]:
    """Calls a function: what the main thread writes to SQLite is queued, what another writes is written at once."""
    with ThreadPoolExecutor(1) as pool:
        yield (lambda act: act()) if "main" in request.param else (lambda act: pool.submit(act).result(PATIENCE))
