"""The console before a real ledger on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.database import Database
from tests.console.town import Town


@pytest.fixture
def town(database: Database) -> Iterator[Town]:
    """On each database."""
    built = Town(database)
    yield built
    built.close()


@pytest.fixture
def sqlite_town(sqlite_database: Database) -> Iterator[Town]:
    """On SQLite alone."""
    built = Town(sqlite_database)
    yield built
    built.close()
