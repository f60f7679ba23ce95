"""Real servers for every test that asks for one. A missing server fails the test; it never skips it."""

import gc
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import flask_openapi.utils
import pytest
from graphql import GraphQLSchema, build_schema
from hypothesis import settings
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from identity.http.client import Client
from pipeline.db.database import Database, DatabaseSettings
from pipeline.migrations import upgrade_at
from tests.chance import IN_CONTROL
from tests.docs.pages import blocks, page, section
from tests.identity.providers import pretend_provider
from tests.ledger.house import House
from tests.ledger.workers import Workers
from tests.ledger.writes import Act
from tests.ledgers import open_ledger, share_out
from tests.loopback import LOOPBACK
from tests.servers import shared_data as published
from tests.servers.oidc import Oidc
from tests.servers.oidc import oidc as run_oidc
from tests.servers.postgres import Emptied, Postgres
from tests.servers.postgres import postgres as run_postgres
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.rabbitmq import rabbitmq as run_rabbitmq
from tests.servers.valkey import Valkey
from tests.servers.valkey import valkey as run_valkey
from tests.statements import compiled_once
from tests.waiting import PATIENCE

# An example that takes longer than Hypothesis's 200 ms is a busy machine, not a fault of what is tested. The slow tests
# look for what nobody has found, and all others try the same each time (tests/chance.py).
settings.register_profile("aswhom", deadline=None, derandomize=True, database=None)
settings.register_profile("slow", deadline=None, derandomize=False)


def pytest_configure(config: pytest.Config) -> None:
    """Thousands of tests are collected, and nothing of that is ever garbage: look for none, then or later."""
    settings.load_profile("slow" if IN_CONTROL or config.option.markexpr == "slow" else "aswhom")
    gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    share_out(metafunc)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    with compiled_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def _schemas_once() -> Iterator[None]:
    """An application takes a quarter of a second to describe itself, and hundreds of tests make the same one."""

    @cache
    def described(model: type[BaseModel], mode: JsonSchemaMode) -> str:
        return json.dumps(describe(model, mode))

    def again(model: type[BaseModel], mode: JsonSchemaMode = "validation") -> Any:
        return json.loads(described(model, mode))  # each its own: what is returned is taken apart

    describe = flask_openapi.utils.get_model_schema
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flask_openapi.utils, "get_model_schema", again)
        yield


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
def _rabbitmq() -> Iterator[RabbitMQ]:
    with run_rabbitmq() as server:
        yield server


@pytest.fixture
def own_rabbitmq(_rabbitmq: RabbitMQ) -> RabbitMQ:
    """An empty RabbitMQ, to be killed and paused at will: one for the session, since each start takes seconds."""
    _rabbitmq.emptied()
    return _rabbitmq


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One cluster for the session; `database_url` makes a database in it."""
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


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One migrated file to copy: migrating takes longer than most of the tests that need a ledger."""
    path = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def opened_postgres(migrated_postgres: Emptied) -> Iterator[Database]:
    """Opened once: what a new connection costs is much of what a test of the ledger takes."""
    opened = open_ledger(migrated_postgres.url)
    yield opened
    opened.close()


@pytest.fixture
def database(ledger_url: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated ledger, opened, once of each kind."""
    if not (ledger_url.startswith("sqlite") or request.node.get_closest_marker("as_owner")):
        yield request.getfixturevalue("opened_postgres")
        return
    opened = open_ledger(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def http() -> Iterator[Client]:
    """A guarded client that reaches the tests' servers."""
    with Client(policy=LOOPBACK, pool_size=16, keep_alive=timedelta(seconds=5)) as client:
        yield client


@pytest.fixture
def sqlite_database(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Database]:
    """One on SQLite alone, where the database is not what is tested."""
    shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
    opened = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> Iterator[Emptied]:
    """One migrated database, emptied after each test that had it of all but what a migration filled.

    It is opened as the role that docs/security.md makes for processes.
    """
    name = postgres.create_database()
    _migrate(postgres.url(name))
    (made,) = blocks(section(page("security.md"), "Two roles in PostgreSQL"), "sql")
    with postgres.connect(name) as owner:
        owner.execute(made)
    emptied = Emptied(postgres, name, role="aswhom_run")
    yield emptied
    emptied.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated ledger without a row, once of each kind."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "ledger.sqlite")
        yield f"sqlite:///{tmp_path}/ledger.sqlite"
        return
    migrated: Emptied = request.getfixturevalue("migrated_postgres")
    yield migrated.owners_url if request.node.get_closest_marker("as_owner") else migrated.url
    migrated.empty()


def _migrate(url: str) -> None:
    """As `aswhom db upgrade` does, which has more patience than a step: all is one commit, and all tests hang on it."""
    upgrade_at(DatabaseSettings(url=url))


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Debian's Chromium, for Playwright's `executable_path`."""
    return _from_debian("chromium", package="chromium")


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """Debian's Prometheus server."""
    return _from_debian("prometheus", package="prometheus")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Debian's promtool, which tests alert rules."""
    return _from_debian("promtool", package="prometheus")


def _from_debian(program: str, *, package: str) -> Path:
    """What no package index has: skipped loudly on a developer's machine, a failure under CI, which installs it."""
    found = shutil.which(program)
    if found is not None:
        return Path(found)
    message = f"NOT RUN: no {program} on this system (on Debian: apt-get install {package})"
    if "CI" in os.environ:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def linear_schema() -> GraphQLSchema:
    """What Linear publishes; to read it takes seconds."""
    return build_schema(published.linear_schema().read_text())


@pytest.fixture
def house(database: Database) -> House:
    """Tenant acme: service principal, ada, GitHub, and an active account for each."""
    built = House(database)
    built.build()
    return built


@pytest.fixture
def workers(house: House, http: Client) -> Iterator[Workers]:
    with pretend_provider() as provider:
        yield Workers(house, provider, http)


@pytest.fixture(params=["in the main thread", "in a thread of its own"])
def from_there(request: pytest.FixtureRequest) -> Iterator[Act]:
    """Calls a function: what the main thread writes to SQLite is queued, what another writes is written at once."""
    with ThreadPoolExecutor(1) as pool:
        yield (lambda act: act()) if "main" in request.param else (lambda act: pool.submit(act).result(PATIENCE))
