"""The people and accounts of one tenant, in a migrated ledger on each database."""

from __future__ import annotations

import pytest

from pipeline.database import Database
from tests.ledger.house import House


@pytest.fixture
def house(database: Database) -> House:
    """Tenant acme: service principal, ada, GitHub, and an active account for each."""
    built = House(database)
    built.build()
    return built
