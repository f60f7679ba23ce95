"""The payments by workers of production, of which every one is killed while its step is on the wire.

As `tests/tasks/test_every_killed_worker.py` has it of the other workflows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.demo import payments as demo_payments
from pipeline.states import JobState, Wait
from tests.faults.time_passes import lapse_bells
from tests.payments.conftest import WORKFLOWS, served
from tests.payments.payments import Paying
from tests.payments.scenes import PAYMENTS, Payment
from tests.sandbox.driver import Sandbox
from tests.servers.postgres import Postgres
from tests.servers.valkey import Valkey
from tests.system.rig import System
from tests.tasks.hands import Hands
from tests.tasks.killing import beside, kill_on_the_wire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, migrated_sqlite: Path, tmp_path: Path) -> str:
    """A ledger's URL."""
    if request.param == "sqlite":
        shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
        return f"sqlite:///{tmp_path}/ledger.sqlite"
    cluster: Postgres = request.getfixturevalue("postgres")
    return cluster.url(cluster.create_database())


@pytest.fixture
def worked(_service: Sandbox, ledger: str, own_valkey: Valkey, tmp_path: Path) -> Iterator[System]:
    authority: str = _service.world["invoices"]["authority"]
    with beside(_service, ledger, own_valkey, tmp_path, base_url=authority, workflows=WORKFLOWS) as system:
        people = {"acme": ("ada", "grace")}
        demo_payments.provide(system.runtime, _service.world, tenants=people, now=datetime.now(UTC))
        with served(system.runtime, int(authority.rpartition(":")[2])):
            yield system
    _service.http.delete(_service.url("invoices", "/_sandbox/faults"))
    _service.order("invoices", "forget")


@pytest.fixture
def hands(_service: Sandbox, worked: System) -> Hands:
    return Hands(_service, worked.runtime, worked.runtime.workflows)


@pytest.mark.parametrize("payment", PAYMENTS, ids=lambda payment: payment.workflow)
def test_a_worker_killed_while_each_step_is_on_the_wire_moves_the_money_once(
    worked: System, hands: Hands, payment: Payment
) -> None:
    paying = Paying(hands)

    def approved() -> None:
        worked.wait(lambda: [job.wait for job in hands.jobs()] == [Wait.APPROVAL], "the question for people's yes")
        for name in payment.approvers:
            assert paying.answer(by=name).status_code == 200
        lapse_bells(worked)

    reads, moves = payment.endpoints
    payment.start(paying)
    kill_on_the_wire(worked, hands, "invoices", reads)
    kill_on_the_wire(worked, hands, "invoices", moves, meanwhile=approved)
    worked.start("worker")
    (job,) = worked.settled()
    assert (job.state, job.runs_spent) == (JobState.DONE, 2), worked.state()
    assert [row.action for row in worked.steps(job.id)] == list(payment.actions)
    assert [{name: one[name] for name in payment.moves} for one in paying.movements()] == [payment.moves]
