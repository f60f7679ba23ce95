"""Real servers for every test that asks for one. A missing server fails the test; it never skips it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.oidc import Oidc
from tests.servers.oidc import oidc as run_oidc
from tests.servers.postgres import Postgres
from tests.servers.postgres import postgres as run_postgres
from tests.servers.valkey import Valkey
from tests.servers.valkey import valkey as run_valkey


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One Valkey for the session: use a key prefix of your own, or `own_valkey` to flush, pause or kill it."""
    with run_valkey() as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey for this test alone, to be killed, paused and emptied at will."""
    with run_valkey() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One cluster for the session; `database_url` makes a database in it."""
    with run_postgres() as cluster:
        yield cluster


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A cluster for this test alone, to be killed at will."""
    with run_postgres() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def oidc() -> Iterator[Oidc]:
    """One authorization server for the session; sign in under a login of your own."""
    with run_oidc() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, empty database for SQLAlchemy, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.sqlite"
        return
    cluster: Postgres = request.getfixturevalue("postgres")
    name = cluster.create_database()
    yield cluster.url(name)
    cluster.drop_database(name)
