"""All parts of a process learn together that Redis is away."""

from __future__ import annotations

from contextlib import closing

from identity.metrics import REDIS_FAILURES
from identity.model import AccountKey
from identity.providers.pace import CAUTIOUS
from identity.refresh.lock import Unreachable
from identity.secret import Secret
from identity.token_endpoint.gate import Endpoint
from pipeline.authoring.registry import Registry
from pipeline.db.database import DatabaseSettings
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.throttle.breaker import Errand
from pipeline.throttle.breaker_state import Passed
from pipeline.throttle.budget import Budget
from pipeline.throttle.limits import EndpointClass
from tests.ledgers import ONLY_SQLITE, TURN
from tests.webhooks.parts import MemoryRing


@ONLY_SQLITE
def test_the_gate_the_lock_the_budgets_and_the_breakers_of_a_process_ask_a_failed_redis_once(ledger_url: str) -> None:
    settings = RuntimeSettings(
        database=DatabaseSettings(url=ledger_url, turn_timeout=TURN),
        keys=Keys(vault={1: b"k" * 32}, signing=b"s" * 32),
        base_url="http://127.0.0.1:1",
        redis_url=Secret("redis://127.0.0.1:1/0"),
    )
    account = AccountKey(tenant="acme", connection="gh", principal="ada")
    with closing(Runtime(settings, Registry([]), MemoryRing())) as runtime:
        lock, services = runtime.coordinator._lock, runtime.worker._services
        before = REDIS_FAILURES._value.get()
        assert isinstance(lock.acquire("acc-ada"), Unreachable)
        assert runtime.gate.enter(Endpoint(connection="gh", url="http://127.0.0.1:1/token"), CAUTIOUS) is None
        budget = Budget(provider="github", account=account, endpoints=EndpointClass(name="core"))
        assert services.budgets.enter(budget) is None
        errand = Errand(provider="github", host="127.0.0.1", tenant="acme", job="job_1")
        assert services.breakers.enter(errand) == Passed()
        assert REDIS_FAILURES._value.get() == before + 1
