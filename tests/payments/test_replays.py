"""No replay, whatever is lost: the spend is in SQL, and Valkey has no part in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from identity.capability import audiences
from identity.secret import Secret
from pipeline.states import JobState
from tests.payments.conftest import WORKFLOWS, furnished, served
from tests.payments.payments import SMALL, Payments
from tests.sandbox.driver import Sandbox
from tests.servers.valkey import Valkey
from tests.tasks.in_process_system import InProcessSystem


@pytest.fixture
def with_valkey(_service: Sandbox, _books: Path, tmp_path: Path, own_valkey: Valkey) -> Iterator[Payments]:
    authority: str = _service.world["invoices"]["authority"]
    url = furnished(_books, tmp_path)
    system = InProcessSystem(_service, url, workflows=WORKFLOWS, base_url=authority, redis_url=Secret(own_valkey.url))
    with served(system.runtime, int(authority.rpartition(":")[2])):
        yield Payments(system)
    system.close()
    _service.order("invoices", "forget")


def test_a_spend_outlives_an_emptied_valkey(with_valkey: Payments, own_valkey: Valkey) -> None:
    """While the step goes on: were the spend in there, this would be the first one once more."""
    payments = with_valkey
    payments.order(endpoint="pay_invoice", mode="drop_response", times=1)
    payments.ask()
    payments.system.work_once()
    heard = payments.stolen()
    own_valkey.flush()
    repeated = payments.replay(heard, idempotency_key="its-own")
    assert (repeated.status_code, repeated.headers["Idempotent-Replayed"]) == (200, "true")
    token = Secret(heard["authorization"].removeprefix("Bearer "))
    (pay,) = [one for one in payments.capabilities() if one.action == "invoices.PayInvoice"]
    authority = payments.system.runtime.authority
    by = payments.system.runtime.database.read(lambda c: audiences.find(c, pay.audience_id))
    assert by is not None
    assert authority.introspect(token, by, request_sha256=pay.request_sha256)["spend"] == "again"
    assert [one["invoice"] for one in payments.movements()] == [SMALL]


def test_an_emptied_valkey_permits_no_replay(with_valkey: Payments, own_valkey: Valkey) -> None:
    payments = with_valkey
    payments.ask()
    (job,) = payments.system.settle()
    assert job.state == JobState.DONE
    own_valkey.flush()
    assert payments.replay(payments.stolen()).json() == {"error": "invalid_token", "reason": "closed"}
    own_valkey.kill()
    assert payments.replay(payments.stolen()).json() == {"error": "invalid_token", "reason": "closed"}
    assert [one["invoice"] for one in payments.movements()] == [SMALL]
