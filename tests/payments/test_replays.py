"""No replay, whatever is lost: the spend is in SQL, and Valkey has no part in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from identity.capability import audiences
from identity.secret import Secret
from pipeline.states import JobState
from tests.ledgers import MOSTLY_SQLITE
from tests.payments.conftest import at_work
from tests.payments.payments import SMALL, Payments
from tests.sandbox.driver import Sandbox
from tests.servers.valkey import Valkey

pytestmark = MOSTLY_SQLITE


@pytest.fixture
def with_valkey(_service: Sandbox, ledger_url: str, own_valkey: Valkey) -> Iterator[Payments]:
    with at_work(_service, ledger_url, redis_url=Secret(own_valkey.url)) as system:
        yield Payments(system)


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
