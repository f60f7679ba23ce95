"""The sandbox's invoices in a process of their own, and a ledger of either kind whose authority they ask over HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from deploy.demo import payments as demo_payments
from deploy.demo.provision import Provision
from deploy.sandbox.world import make_world
from identity.secret import Secret
from pipeline.runtime import Runtime
from tests.payments.payments import OF_ACME_ALONE, PAID_ALREADY, Payments
from tests.sandbox.driver import SERVICES, Receiver, Sandbox, address, start
from tests.servers.postgres import Emptied
from tests.servers.process import end, free_port
from tests.servers.web import serving
from tests.tasks.in_process_system import InProcessSystem
from tests.webhooks.parts import MemoryLedger, MemoryRing
from webhooks.app import create_app
from webhooks.settings import WebSettings

WORKFLOWS = ("tasks.invoice_approval", "tasks.invoice_refund")


@pytest.fixture(scope="session")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("invoices")
    receiver = Receiver()
    world = make_world(
        ports={service: free_port() for service in SERVICES},
        hooks={"github": receiver.url, "slack": receiver.url},
        callbacks={"github": receiver.url, "linear": receiver.url},
        now=datetime.now(UTC),
        authority=f"http://127.0.0.1:{free_port()}",
    )
    (books,) = [one["invoices"] for one in world["invoices"]["tenants"] if one["tenant"] == "acme"]
    row = {"vendor": "Umbrella", "amount": "640.00", "currency": "EUR"}
    books += [{"id": OF_ACME_ALONE, **row}, {"id": PAID_ALREADY, **row, "status": "paid"}]
    (folder / "world.json").write_text(json.dumps(world))
    process = start(folder, "invoices")
    try:
        address(process)
        with Sandbox(world, receiver, folder) as sandbox:
            yield sandbox
    finally:
        end(process, seconds=5)
        receiver.close()


@contextmanager
def served(runtime: Runtime, port: int) -> Iterator[None]:
    """The authority of *runtime* over HTTP."""
    web = WebSettings(base_url=runtime.settings.base_url)
    app = create_app(
        web, MemoryLedger(), runtime.workflows, MemoryRing(), authority=runtime.authority, approver=runtime.approving
    )
    server = make_server("127.0.0.1", port, app, threaded=True)
    with serving(server):
        yield


@pytest.fixture(scope="session")
def _books(_service: Sandbox, migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A furnished SQLite ledger, to copy."""
    path = tmp_path_factory.mktemp("furnished") / "ledger.sqlite"
    shutil.copy(migrated_sqlite, path)
    furnish(_service, f"sqlite:///{path}")
    return path


def furnish(service: Sandbox, url: str) -> None:
    """Register the world's tenants, and the people of two who may ask for payments."""
    made = InProcessSystem(service, url, workflows=WORKFLOWS, base_url=service.world["invoices"]["authority"])
    Provision(made.runtime, service.world, now=datetime.now(UTC)).everything()
    people = {"acme": ("ada", "grace"), "globex": ("linus",)}
    demo_payments.provide(made.runtime, service.world, tenants=people, now=datetime.now(UTC))
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, _service: Sandbox, tmp_path: Path) -> Iterator[str]:
    """A furnished ledger without a job, once of each kind."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("_books"), tmp_path / "ledger.sqlite")
        yield f"sqlite:///{tmp_path}/ledger.sqlite"
        return
    migrated: Emptied = request.getfixturevalue("migrated_postgres")
    furnish(_service, migrated.url)
    yield migrated.url
    migrated.empty()


@contextmanager
def at_work(
    service: Sandbox, ledger_url: str, *, workflows: tuple[str, ...] = WORKFLOWS, redis_url: Secret | None = None
) -> Iterator[InProcessSystem]:
    """A worker's runtime beside the invoices, which are all unpaid."""
    authority: str = service.world["invoices"]["authority"]
    system = InProcessSystem(service, ledger_url, workflows=workflows, base_url=authority, redis_url=redis_url)
    with served(system.runtime, int(authority.rpartition(":")[2])):
        yield system
    system.close()
    service.http.delete(service.url("invoices", "/_sandbox/faults"))
    service.order("invoices", "forget")


@pytest.fixture
def payments(_service: Sandbox, ledger_url: str) -> Iterator[Payments]:
    with at_work(_service, ledger_url) as system:
        yield Payments(system)
