"""A ledger on each database, and one on SQLite alone for what the database has no part in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.capability.asking import client_of
from tests.capability.capability_ledger import CapabilityLedger
from tests.ledgers import open_ledger


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[CapabilityLedger]:
    database = open_ledger(ledger_url)
    yield CapabilityLedger(database).build()
    database.close()


@pytest.fixture(scope="session")
def shared_ledger(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CapabilityLedger]:
    """One for all tests that use tokens of their own, and revoke, stop and rotate nothing."""
    folder = tmp_path_factory.mktemp("ledger")
    shutil.copy(migrated_sqlite, folder / "ledger.sqlite")
    database = open_ledger(f"sqlite:///{folder}/ledger.sqlite")
    yield CapabilityLedger(database).build()
    database.close()


@pytest.fixture
def ledger_on_sqlite(migrated_sqlite: Path, tmp_path: Path) -> Iterator[CapabilityLedger]:
    shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
    database = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield CapabilityLedger(database).build()
    database.close()


@pytest.fixture
def client(shared_ledger: CapabilityLedger) -> FlaskClient:
    return client_of(shared_ledger)
