"""A migrated ledger on each database, and the people and accounts of one tenant in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.database import Database, DatabaseSettings, open_database
from pipeline.migrations import upgrade
from tests.ledger.house import House
from tests.servers.postgres import Postgres


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One migrated file to copy: migrating takes longer than most of these tests."""
    path = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    database = open_database(DatabaseSettings(url=f"sqlite:///{path}"))
    upgrade(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> str:
    name = postgres.create_database()
    database = open_database(DatabaseSettings(url=postgres.url(name)))
    upgrade(database)
    database.close()
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated ledger of each kind, fresh for the test."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("migrated_sqlite")
        shutil.copy(template, tmp_path / "ledger.sqlite")
        yield f"sqlite:///{tmp_path}/ledger.sqlite"
        return
    cluster: Postgres = request.getfixturevalue("postgres")
    name = cluster.create_database(template=request.getfixturevalue("migrated_postgres"))
    yield cluster.url(name)
    cluster.drop_database(name)


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
