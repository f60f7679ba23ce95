"""A running system on each database."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.valkey import Valkey
from tests.system.rig import System

Start = Callable[..., System]


@pytest.fixture
def broker(own_valkey: Valkey) -> Valkey | RabbitMQ:
    """The broker of a system; a test module may say another."""
    return own_valkey


@pytest.fixture
def start_system(broker: Valkey | RabbitMQ, tmp_path: Path, migrated_sqlite: Path) -> Iterator[Start]:
    """Starts a system with a broker of its own; `database_url` and settings are arguments."""
    started: list[System] = []

    def begin(database_url: str = "", **settings: str) -> System:
        if not database_url:
            shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
            database_url = f"sqlite:///{tmp_path}/ledger.sqlite"
        system = System(tmp_path, database_url, broker, **settings)
        started.append(system)
        system.start_sandbox()
        return system

    yield begin
    for system in started:
        system.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def system(request: pytest.FixtureRequest, start_system: Start) -> System:
    """Everything but beat, on each database; PostgreSQL with the slow tests, unless a test asks for both."""
    url = ""
    if request.param == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        url = cluster.url(cluster.create_database())
    system = start_system(url)
    system.start("web", "worker", "revocations", "housekeeping")
    return system
