"""The console before a real ledger on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.db.database import Database
from tests.console.console_app import ConsoleApp


@pytest.fixture
def console(database: Database) -> Iterator[ConsoleApp]:
    """On each database."""
    built = ConsoleApp(database)
    yield built
    built.close()


@pytest.fixture
def sqlite_console(sqlite_database: Database) -> Iterator[ConsoleApp]:
    """On SQLite alone."""
    built = ConsoleApp(sqlite_database)
    yield built
    built.close()
