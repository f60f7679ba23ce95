"""Breakers of upstreams' hosts, in a real Valkey and without one: who opens them to whom, the probe, and the line."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from identity.model import AccountKey
from identity.providers.pace import CAUTIOUS
from identity.redis_cooldown import RedisCooldown
from identity.token_endpoint.gate import Endpoint, Gate
from pipeline.authoring.registry import Registry
from pipeline.db.database import DatabaseSettings
from pipeline.execution.services import StepSettings
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.throttle.breaker import Breakers, Errand
from pipeline.throttle.breaker_state import HostBreaker, Passed
from pipeline.throttle.budget import Budget, Budgets
from pipeline.throttle.limits import EndpointClass
from tests.ledgers import ONLY_SQLITE
from tests.servers.process import free_port
from tests.servers.valkey import Valkey
from tests.webhooks.parts import MemoryRing

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
LOOK = timedelta(minutes=40)
BREAKER = HostBreaker(
    threshold=3, first=HOUR, longest=4 * HOUR, probe=10 * HOUR, look=LOOK, apart=timedelta(minutes=5), line=HOUR
)
COOLED = timedelta(minutes=65)  # after the first opening, and nothing is forgotten yet
NEAR = timedelta(seconds=30)  # what a slow machine may add, where the steps are minutes
_hosts = itertools.count()


@dataclass
class Moved:
    """Breakers whose clock stands until it is moved."""

    client: redis.Redis | None
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.breakers = Breakers(self.client, breaker=BREAKER, prefix="breakers:", monotonic=lambda: self.now)

    def passes(self, time: timedelta, *errands: Errand) -> None:
        """So much passes: seen from then, what Redis keeps lies, and ends, so much earlier."""
        self.now += time.total_seconds()
        if self.client is not None:
            for key in {f"breakers:upstream:{key}" for errand in errands for key in errand.keys}:
                for field in {"open", "since", "probe", "line", "seen"} & set(self.client.hkeys(key)):
                    self.client.hincrby(key, field, -time // timedelta(microseconds=1))
                left: Any = self.client.pttl(key)
                self.client.pexpire(key, max(left - time // timedelta(milliseconds=1), 0))


@pytest.fixture(params=["redis", "alone"])
def moved(request: pytest.FixtureRequest) -> Moved:
    return Moved(request.getfixturevalue("client") if request.param == "redis" else None)


@pytest.fixture
def client(valkey: Valkey) -> Any:
    with valkey.client() as opened:
        yield opened


def at_a_host() -> Callable[..., Errand]:
    """Errands of whom a test likes, at a host that no other test asks about."""
    host = f"api{next(_hosts)}.example"
    return lambda tenant="acme", job="job-1": Errand(provider="forge", host=host, tenant=tenant, job=job)


def fails(moved: Moved, *errands: Errand, may_be_own: bool = False) -> list[bool]:
    """Whether each failure was told that the host is away."""
    return [moved.breakers.failed(errand, may_be_own=may_be_own) is not None for errand in errands]


def passes(moved: Moved, errand: Errand) -> bool:
    return isinstance(moved.breakers.enter(errand), Passed)


def near(wait: timedelta | Passed | None, expected: timedelta) -> bool:
    return isinstance(wait, timedelta) and abs(wait - expected) < NEAR


def test_one_tenants_failures_close_a_host_to_itself_alone(moved: Moved) -> None:
    to = at_a_host()
    assert fails(moved, to(), to(), to(), to()) == [False, False, True, True]
    assert near(moved.breakers.enter(to()), HOUR)
    assert passes(moved, to("globex"))


def test_failures_of_different_tenants_close_a_host_to_all(moved: Moved) -> None:
    to = at_a_host()
    assert fails(moved, to("a"), to("b"), to("a")) == [False, False, True]
    assert near(moved.breakers.enter(to("who never called it")), HOUR)
    assert passes(moved, at_a_host()("a")), "another host"


def test_an_answer_between_failures_opens_nothing(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"))
    moved.breakers.answered(to("c"))
    assert fails(moved, to("a"), to("b")) == [False, False]
    assert passes(moved, to("a"))


def test_what_may_be_one_requests_own_fault_counts_once_a_job(moved: Moved) -> None:
    to = at_a_host()
    assert fails(moved, *[to()] * 20, may_be_own=True) == [False] * 20
    assert fails(moved, to(job="2"), to(job="3"), may_be_own=True) == [False, True]


def test_one_probe_goes_and_where_it_fails_the_host_is_left_alone_for_longer(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to(), to(), to())
    for cooled, again in ((1, 2), (2, 4), (4, 4)):  # hours
        assert not passes(moved, to())
        moved.passes(cooled * HOUR, to())
        start = threading.Barrier(6)

        def enter(_: int, start: threading.Barrier = start) -> bool:
            start.wait()
            return passes(moved, to())

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(enter, range(6))).count(True) == 1
        assert near(moved.breakers.failed(to(), may_be_own=False), again * HOUR)
    moved.passes(5 * HOUR, to())
    assert passes(moved, to())
    moved.breakers.answered(to())
    assert [moved.breakers.enter(to()) for _ in range(6)] == [Passed()] * 6


def test_a_failed_probe_of_the_tenant_that_failed_last_keeps_the_others_away_for_no_longer(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"), to("a"))
    for _ in range(3):
        moved.passes(HOUR, to("a"), to("b"))
        assert passes(moved, to("a"))
        fails(moved, to("a"))
    moved.passes(HOUR, to("a"), to("b"))
    assert passes(moved, to("b"))


def test_what_fails_beside_the_probe_was_sent_before_and_says_nothing_new(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"), to("a"))
    assert fails(moved, to("c", "late")) == [True]
    moved.passes(HOUR, to("a"), to("b"), to("c"))
    assert fails(moved, to("c", "late")) == [False], "of a call that took longer than the cooling"
    assert passes(moved, to("b", "probe"))
    fails(moved, to("a", "late"), to("b", "late"), to("c", "late"))
    assert near(moved.breakers.enter(to("d")), LOOK), "the probe is on its way still"
    assert near(moved.breakers.failed(to("b", "probe"), may_be_own=False), 2 * HOUR), "and fails for the first time"


def test_how_long_a_host_is_away_without_a_break_is_known_but_while_a_call_looks(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to(), to())
    assert moved.breakers.away_for(to()) == timedelta()
    fails(moved, to())
    moved.passes(HOUR, to())
    assert moved.breakers.away_for(to()) == timedelta(), "whoever comes now looks"
    assert passes(moved, to())
    assert moved.breakers.away_for(to()) == timedelta(), "the probe may find it back"
    fails(moved, to())
    assert near(moved.breakers.away_for(to()), HOUR)
    assert moved.breakers.away_for(to("globex")) == timedelta(), "nobody knows that it is away for them"
    moved.breakers.answered(to())
    fails(moved, to(), to(), to())
    assert moved.breakers.away_for(to()) < NEAR, "another outage"


def test_answers_between_failures_count_also_of_calls_that_went_before_the_first(moved: Moved) -> None:
    to = at_a_host()
    calls = [to(job=str(number)) for number in range(60)]
    passed = [moved.breakers.enter(call) for call in calls]
    for number, (call, how) in enumerate(zip(calls, passed, strict=True)):
        assert isinstance(how, Passed)
        if number % 10 == 0:
            assert moved.breakers.failed(call, may_be_own=False) is None
        elif moved.breakers.knows(call, how):
            moved.breakers.answered(call)
        moved.now += 0.1
    well = moved.breakers.enter(to(job="later"))
    assert isinstance(well, Passed)
    assert not moved.breakers.knows(to(), well), "of a host that is well nobody is told"


def test_a_probe_that_was_not_sent_leaves_its_place_to_another(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to(), to(), to())
    moved.passes(HOUR, to())
    assert passes(moved, to())
    assert not passes(moved, to(job="2"))
    moved.breakers.back(to(job="2"))  # which had passed before, and is not sent either
    assert not passes(moved, to(job="3")), "the probe is another's"
    moved.breakers.back(to())
    assert passes(moved, to(job="2"))


def test_who_comes_during_a_probe_looks_again_soon_and_not_only_when_a_dead_one_is_given_up(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"), to("a"))
    moved.passes(HOUR, to("a"), to("b"), to("c"))
    assert passes(moved, to("a"))
    assert near(moved.breakers.enter(to("a", job="2")), LOOK)
    assert near(moved.breakers.enter(to("c")), LOOK + BREAKER.apart), "another tenant's line begins a place later"
    moved.passes(BREAKER.probe - LOOK / 4, to("a"), to("b"), to("c"))
    assert near(moved.breakers.enter(to("b")), LOOK / 4)
    moved.passes(LOOK, to("a"), to("b"), to("c"))
    assert passes(moved, to("b")), "the probe died"


def test_who_waits_stands_in_a_line_that_begins_anew_behind_its_end(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"), to("a"))
    told = [moved.breakers.enter(to("c")) for _ in range(15)]
    for number, wait in enumerate(told):
        assert near(wait, HOUR + number % 13 * BREAKER.apart), number
    assert near(moved.breakers.line(at_a_host()(), after=HOUR), HOUR), "a line of its own"


def test_a_tenants_backlog_stands_before_nobody_elses_first_job(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"), to("a"))
    told = [moved.breakers.enter(to("c", f"job-{number}")) for number in range(10)]
    assert [near(wait, HOUR + number * BREAKER.apart) for number, wait in enumerate(told)] == [True] * 10
    assert near(moved.breakers.enter(to("d")), HOUR + BREAKER.apart), "behind the first of the other tenant"
    assert near(moved.breakers.enter(to("d", "job-2")), HOUR + 2 * BREAKER.apart)
    assert near(moved.breakers.line(to("e"), after=HOUR), HOUR + 2 * BREAKER.apart)


def test_what_a_failure_will_mean_is_known_before_the_call(moved: Moved) -> None:
    to = at_a_host()
    assert moved.breakers.enter(to()) == Passed(), "of a host that is well nothing is known, nor to be told"
    fails(moved, to(job="2"))
    assert moved.breakers.enter(to()) == Passed(known=True)
    fails(moved, to())
    own = moved.breakers.enter(to())
    assert isinstance(own, Passed)
    assert (own.meets_outage(may_be_own=False), own.meets_outage(may_be_own=True)) == (True, False)
    another = moved.breakers.enter(to(job="2"))
    assert isinstance(another, Passed)
    assert another.meets_outage(may_be_own=True)


def test_where_others_know_the_host_to_be_away_no_failure_is_a_jobs_own(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"), to("a"), to("c"))
    moved.passes(HOUR, to("c"))
    probe = moved.breakers.enter(to("c"))
    assert isinstance(probe, Passed)
    assert probe.meets_outage(may_be_own=True)
    assert fails(moved, to("c"), may_be_own=True) == [True]


def test_a_clock_that_is_set_back_closes_no_host_for_longer(client: redis.Redis) -> None:
    moved, to = Moved(client), at_a_host()
    fails(moved, to(), to(), to())
    moved.passes(-10 * HOUR, to())
    assert near(moved.breakers.enter(to()), HOUR)


def test_failures_of_long_ago_are_forgotten(client: redis.Redis) -> None:
    moved, to = Moved(None), at_a_host()
    fails(moved, to(), to())
    moved.passes(timedelta(minutes=16), to())
    assert fails(moved, to(), to(), to()) == [False, False, True]
    fails(Moved(client), to(), to())
    (left,) = {client.pttl(f"breakers:upstream:{key}") > 890_000 for key in to().keys}
    assert left
    assert client.pttl(f"breakers:upstream:{to().keys[0]}") <= 900_000


def test_while_redis_is_away_a_process_counts_by_itself() -> None:
    to = at_a_host()
    with redis.Redis(port=free_port()) as away:
        breakers = Breakers(away, breaker=BREAKER)
        assert [breakers.failed(to(), may_be_own=False) is None for _ in range(3)] == [True, True, False]
        assert isinstance(breakers.enter(to()), timedelta)
        breakers.answered(to())
        assert breakers.enter(to()) == Passed()


def test_a_redis_that_hangs_costs_a_step_one_timeout_however_many_ask_it() -> None:
    asked: list[str] = []

    class Hangs:
        connection_pool = redis.ConnectionPool()

        def register_script(self, script: str) -> Callable[..., int]:
            def run(**_: Any) -> int:
                asked.append(script)
                raise redis.TimeoutError

            return run

    now, client = [0.0], cast("redis.Redis", Hangs())
    shared = RedisCooldown(monotonic=lambda: now[0])
    breakers, budgets = Breakers(client, cooldown=shared), Budgets(client, cooldown=shared)
    gate = Gate(client, cooldown=shared)
    account = AccountKey(tenant="acme", connection="gh", principal="ada")
    budget = Budget(provider="forge", account=account, endpoints=EndpointClass(name="core"))
    where = Endpoint(connection="gh", url="https://forge.example/token")
    for number in (1, 2):
        assert breakers.enter(at_a_host()()) == Passed()
        assert budgets.enter(budget) is None
        assert gate.enter(where, CAUTIOUS) is None
        assert len(asked) == number
        now[0] += 6


_WHO = st.builds(lambda tenant, job: (tenant, f"{tenant}{job}"), st.sampled_from("ab"), st.integers(1, 2))
_ACT = st.one_of(
    st.tuples(st.sampled_from(["enter", "answered", "back", "own", "failed", "line", "away_for"]), _WHO),
    st.tuples(st.just("passes"), st.sampled_from([timedelta(minutes=31), COOLED, 2 * HOUR, 5 * HOUR])),
)


_A1, _A2 = ("a", "a1"), ("a", "a2")
_OPENS: list[tuple[str, Any]] = [("failed", _A1)] * 3
_PROBES: list[tuple[str, Any]] = [*_OPENS, ("passes", COOLED), ("enter", _A1)]


@given(acts=st.lists(_ACT, max_size=30))
@example(acts=[*_PROBES, ("away_for", _A1), ("failed", _A1), ("away_for", _A1)])
@example(acts=[*_PROBES, ("failed", _A2), ("enter", _A2), ("failed", _A1), ("enter", _A2)])
@example(acts=[*_OPENS, ("failed", _A2), ("passes", COOLED), ("failed", _A2), ("enter", _A2)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_without_redis_the_answers_are_the_same(client: redis.Redis, acts: list[tuple[str, Any]]) -> None:
    both, to = [Moved(client), Moved(None)], at_a_host()
    everybody = [to(tenant, f"{tenant}{job}") for tenant in "ab" for job in (1, 2)]
    for act, how in acts:
        told: list[timedelta | Passed | None] = []
        for moved in both:
            breakers = moved.breakers
            if act == "passes":
                moved.passes(how, *everybody)
            elif act in ("own", "failed"):
                told.append(breakers.failed(to(*how), may_be_own=act == "own"))
            elif act == "line":
                told.append(breakers.line(to(*how), after=HOUR))
            else:
                told.append(getattr(breakers, act)(to(*how)))
        if told:
            shared, alone = told
            assert near(shared, alone) if isinstance(alone, timedelta) else shared == alone, act


@pytest.mark.parametrize("deadline", [20, 60, 120])
def test_a_host_that_hangs_is_left_alone_for_longer_and_longer_whatever_a_call_may_take(deadline: int) -> None:
    steps = StepSettings(call_deadline=timedelta(seconds=deadline))
    now, to = [1_000.0], at_a_host()
    breakers = Breakers(None, breaker=HostBreaker(probe=steps.longest_probe), monotonic=lambda: now[0])
    for job in range(5):
        breakers.failed(to(job=f"{job}"), may_be_own=True)
    hanging: dict[float, str] = {}
    probes, away = 0, timedelta()
    for second in range(1, 3600):  # each second another job comes
        now[0] += 1
        if (failing := hanging.pop(second, None)) is not None:
            breakers.failed(to(job=failing), may_be_own=True)
        if isinstance(breakers.enter(to(job=f"later-{second}")), Passed):
            hanging[second + deadline] = f"later-{second}"
            probes += 1
        away = max(away, breakers.away_for(to()))
    assert probes < 20
    assert away > HOUR / 2


@ONLY_SQLITE
def test_a_processs_breakers_give_a_probe_as_long_as_its_calls_may_take(ledger_url: str) -> None:
    steps = StepSettings(call_deadline=timedelta(minutes=10))
    made_of = RuntimeSettings(
        database=DatabaseSettings(url=ledger_url),
        keys=Keys(vault={1: b"k" * 32}, signing=b"s" * 32),
        base_url="http://127.0.0.1:1",
        steps=steps,
    )
    with closing(Runtime(made_of, Registry([]), MemoryRing())) as runtime:
        breakers = runtime.worker._services.breakers
        assert breakers._breaker.probe == steps.longest_probe


def test_the_shipped_breaker_looks_often_enough_before_a_wait_ends() -> None:
    assert HostBreaker().longest < StepSettings().upstream_wait
