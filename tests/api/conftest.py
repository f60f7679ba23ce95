"""The API before a real ledger on each database, with a worker's hands and keys of every role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.database import Database
from tests.api.town import Town


@pytest.fixture
def town(database: Database) -> Iterator[Town]:
    """Tenants acme and globex, each with ada, a service, an agent and a key of each role."""
    built = Town(database)
    yield built
    built.close()


@pytest.fixture
def sqlite_town(sqlite_database: Database) -> Iterator[Town]:
    """The same on SQLite alone."""
    built = Town(sqlite_database)
    yield built
    built.close()
