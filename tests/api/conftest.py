"""The API before a real ledger on each database, with a worker's hands and keys of every role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.db.database import Database
from tests.api.agents_api import AgentsApi


@pytest.fixture
def api(database: Database) -> Iterator[AgentsApi]:
    """Tenants acme and globex, each with ada, a service, an agent and a key of each role."""
    built = AgentsApi(database)
    yield built
    built.close()


@pytest.fixture
def sqlite_api(sqlite_database: Database) -> Iterator[AgentsApi]:
    """The same on SQLite alone."""
    built = AgentsApi(sqlite_database)
    yield built
    built.close()
