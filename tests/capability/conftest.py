"""A court on each database, and one on SQLite alone for what the database has no part in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from pipeline.database import DatabaseSettings, open_database
from tests.capability.asking import client_of
from tests.capability.court import Court


@pytest.fixture
def court(ledger_url: str) -> Iterator[Court]:
    database = open_database(DatabaseSettings(url=ledger_url))
    yield Court(database).build()
    database.close()


@pytest.fixture(scope="session")
def standing_court(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Court]:
    """One for all tests that use tokens of their own, and revoke, stop and rotate nothing."""
    folder = tmp_path_factory.mktemp("court")
    shutil.copy(migrated_sqlite, folder / "ledger.sqlite")
    database = open_database(DatabaseSettings(url=f"sqlite:///{folder}/ledger.sqlite"))
    yield Court(database).build()
    database.close()


@pytest.fixture
def court_on_sqlite(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Court]:
    shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
    database = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/ledger.sqlite"))
    yield Court(database).build()
    database.close()


@pytest.fixture
def client(standing_court: Court) -> FlaskClient:
    return client_of(standing_court)
