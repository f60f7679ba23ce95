"""The console before a real ledger on each database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.database import DatabaseSettings, open_database
from tests.console.town import Town


@pytest.fixture
def town(ledger_url: str) -> Iterator[Town]:
    """On each database."""
    database = open_database(DatabaseSettings(url=ledger_url))
    built = Town(database)
    yield built
    built.close()
    database.close()


@pytest.fixture
def sqlite_town(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Town]:
    """On SQLite alone, where the database is not what is tested."""
    shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
    database = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/ledger.sqlite"))
    built = Town(database)
    yield built
    built.close()
    database.close()
