"""A migrated ledger on each database, and the people and accounts of one tenant in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.database import Database, DatabaseSettings, open_database
from tests.ledger.house import House


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    opened = open_database(DatabaseSettings(url=ledger_url))
    yield opened
    opened.close()


@pytest.fixture
def house(database: Database) -> House:
    """Tenant acme: service principal, ada, GitHub, and an active account for each."""
    built = House(database)
    built.build()
    return built
