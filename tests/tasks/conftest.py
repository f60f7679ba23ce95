"""What upstreams publish, and the answers and calls that tests are made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.provision import callbacks
from deploy.sandbox.world import TENANTS
from identity.model import PrincipalKind
from identity.principals import ensure_principal
from pipeline.action import Call, Response
from pipeline.states import JobState
from tests.sandbox.driver import SERVICES, Sandbox, running
from tests.servers import shared_data
from tests.tasks.approvals import FOUR_EYES, apply
from tests.tasks.calls import make_call
from tests.tasks.in_process_system import BASE_URL, InProcessSystem
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
    made = InProcessSystem(_upstreams, f"sqlite:///{path}")
    made.furnish()
    made.close()
    return path


@pytest.fixture
def system(_upstreams: Sandbox, _furnished: Path, tmp_path: Path) -> Iterator[InProcessSystem]:
    """A worker's runtime among the pretend upstreams, which forget their faults afterwards."""
    shutil.copy(_furnished, tmp_path / "ledger.sqlite")
    made = InProcessSystem(_upstreams, f"sqlite:///{tmp_path}/ledger.sqlite")
    yield made
    made.close()
    for service in SERVICES:
        _upstreams.http.delete(_upstreams.url(service, "/_sandbox/faults"))
    _upstreams.order("stripe", "forget")


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
