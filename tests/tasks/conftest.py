"""What upstreams publish, and the answers and calls that tests are made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.provision import callbacks
from deploy.sandbox.world import TENANTS
from identity.model import PrincipalKind
from identity.principals import ensure_principal
from identity.secret import Secret
from pipeline.action import Call, Response
from pipeline.db.database import DatabaseSettings
from pipeline.migrations import upgrade_at
from pipeline.states import JobState
from tests.sandbox.driver import SERVICES, Sandbox, running
from tests.servers import shared_data
from tests.servers.postgres import Postgres
from tests.servers.valkey import Valkey
from tests.system.rig import System
from tests.tasks.approvals import FOUR_EYES, apply
from tests.tasks.calls import make_call
from tests.tasks.hands import Hands
from tests.tasks.in_process_system import BASE_URL, WORKFLOWS, InProcessSystem
from tests.tasks.killing import beside
from tests.tasks.published import GitHubDocument, SlackDocument
from tests.tasks.scenes import deal, opportunity


@pytest.fixture(scope="session")
def github_document() -> GitHubDocument:
    return GitHubDocument(json.loads(shared_data.github_rest().read_text()))


@pytest.fixture(scope="session")
def slack_document() -> SlackDocument:
    return SlackDocument(json.loads(shared_data.slack_openapi().read_text()))


@pytest.fixture
def call() -> Call:
    return make_call()


@pytest.fixture
def answer() -> Callable[..., Response]:
    """An answer with a JSON body."""

    def make(document: Any, *, status: int = 200, **headers: str) -> Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(status=status, headers=names, body=json.dumps(document).encode())

    return make


@pytest.fixture(scope="session")
def _upstreams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running(tmp_path_factory.mktemp("system"), callbacks=callbacks(BASE_URL, TENANTS)) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def _furnished(_upstreams: Sandbox, migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One ledger with the world's tenants in it, to copy: registering them takes longer than most of the tests."""
    path = tmp_path_factory.mktemp("furnished") / "ledger.sqlite"
    shutil.copy(migrated_sqlite, path)
    _furnish(_upstreams, f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_database(postgres: Postgres) -> str:
    """One on PostgreSQL, to copy."""
    name = postgres.create_database()
    upgrade_at(DatabaseSettings(url=postgres.url(name)))
    return name


@pytest.fixture(scope="session")
def _furnished_postgres(_upstreams: Sandbox, postgres: Postgres, migrated_database: str) -> str:
    """One with the world's tenants in it."""
    name = postgres.create_database(migrated_database)
    _furnish(_upstreams, postgres.url(name))
    return name


def _furnish(upstreams: Sandbox, url: str) -> None:
    made = InProcessSystem(upstreams, url)
    made.furnish()
    made.close()


@pytest.fixture
def kind() -> str:
    """Of the ledger; a test module may say others."""
    return "sqlite"


@pytest.fixture
def furnished_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A ledger with the world's tenants in it."""
    if kind == "sqlite":
        shutil.copy(request.getfixturevalue("_furnished"), tmp_path / "ledger.sqlite")
        yield f"sqlite:///{tmp_path}/ledger.sqlite"
        return
    cluster: Postgres = request.getfixturevalue("postgres")
    name = cluster.create_database(request.getfixturevalue("_furnished_postgres"))
    yield cluster.url(name)
    cluster.drop_database(name)


@contextmanager
def _at_work(upstreams: Sandbox, url: str, valkey: Valkey | None) -> Iterator[InProcessSystem]:
    made = InProcessSystem(upstreams, url, redis_url=Secret(valkey.url) if valkey else None)
    yield made
    made.close()
    _forget(upstreams)


def _forget(upstreams: Sandbox) -> None:
    for service in SERVICES:
        upstreams.http.delete(upstreams.url(service, "/_sandbox/faults"))
    upstreams.order("stripe", "forget")


@pytest.fixture
def system(
    _upstreams: Sandbox, furnished_url: str, kind: str, request: pytest.FixtureRequest
) -> Iterator[InProcessSystem]:
    """A worker's runtime among the pretend upstreams, which forget their faults afterwards.

    SQLite has no Valkey beside it, as in the smallest installation, and PostgreSQL has one.
    """
    valkey: Valkey | None = None if kind == "sqlite" else request.getfixturevalue("own_valkey")
    with _at_work(_upstreams, furnished_url, valkey) as made:
        yield made


@pytest.fixture
def system_with_budgets(_upstreams: Sandbox, furnished_url: str, own_valkey: Valkey) -> Iterator[InProcessSystem]:
    """The same with a Valkey on either."""
    with _at_work(_upstreams, furnished_url, own_valkey) as made:
        yield made


@pytest.fixture
def ledger(request: pytest.FixtureRequest, migrated_sqlite: Path, tmp_path: Path) -> Iterator[str]:
    """A migrated ledger's URL; a test may say of which kind."""
    if getattr(request, "param", "sqlite") == "sqlite":
        shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
        yield f"sqlite:///{tmp_path}/ledger.sqlite"
        return
    cluster: Postgres = request.getfixturevalue("postgres")
    name = cluster.create_database(request.getfixturevalue("migrated_database"))
    yield cluster.url(name)
    cluster.drop_database(name)


@pytest.fixture
def worked(_upstreams: Sandbox, ledger: str, own_valkey: Valkey, tmp_path: Path) -> Iterator[System]:
    """Housekeeping, and whichever workers a test starts, beside the same upstreams."""
    with beside(_upstreams, ledger, own_valkey, tmp_path, base_url=BASE_URL, workflows=WORKFLOWS) as system:
        yield system
    _forget(_upstreams)


@pytest.fixture
def hands(_upstreams: Sandbox, worked: System) -> Hands:
    return Hands(_upstreams, worked.runtime, worked.runtime.workflows)


@pytest.fixture
def waiting(system: InProcessSystem) -> InProcessSystem:
    """Ada's deal is won, and the step that writes it down waits for bob and carol."""
    for name in ("ada", "bob", "carol"):
        make = partial(ensure_principal, tenant="acme", kind=PrincipalKind.USER, name=name, now=datetime.now(UTC))
        system.runtime.database.write(partial(make, id=f"acme.{name}"))
    apply(system, FOUR_EYES)
    system.connect_seller("acme", "ada")
    system.report("acme", "deal.changed", deal(opportunity(system), amount=12_000))
    (job,) = system.settle()
    assert (job.state, job.wait) == (JobState.WAITING, "approval")
    return system
