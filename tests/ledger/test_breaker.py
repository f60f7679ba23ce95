"""Breakers of upstreams' hosts, in a real Valkey and without one: who opens them to whom, the probe, and the line."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.breaker import Breakers, Errand
from pipeline.breaker_state import Breaker
from tests.servers.process import free_port
from tests.servers.valkey import Valkey

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
BREAKER = Breaker(threshold=3, first=HOUR, longest=4 * HOUR, probe=10 * HOUR, apart=timedelta(minutes=5), line=HOUR)
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
                for field in {"open", "probe", "line", "seen"} & set(self.client.hkeys(key)):
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


def near(wait: timedelta | None, expected: timedelta) -> bool:
    return wait is not None and abs(wait - expected) < NEAR


def test_one_tenants_failures_close_a_host_to_itself_alone(moved: Moved) -> None:
    to = at_a_host()
    assert fails(moved, to(), to(), to(), to()) == [False, False, True, True]
    assert near(moved.breakers.enter(to()), HOUR)
    assert moved.breakers.enter(to("globex")) is None


def test_failures_of_different_tenants_close_a_host_to_all(moved: Moved) -> None:
    to = at_a_host()
    assert fails(moved, to("a"), to("b"), to("a")) == [False, False, True]
    assert near(moved.breakers.enter(to("who never called it")), HOUR)
    assert moved.breakers.enter(at_a_host()("a")) is None, "another host"


def test_an_answer_between_failures_opens_nothing(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"))
    moved.breakers.answered(to("c"))
    assert fails(moved, to("a"), to("b")) == [False, False]
    assert moved.breakers.enter(to("a")) is None


def test_what_may_be_one_requests_own_fault_counts_once_a_job(moved: Moved) -> None:
    to = at_a_host()
    assert fails(moved, *[to()] * 20, may_be_own=True) == [False] * 20
    assert fails(moved, to(job="2"), to(job="3"), may_be_own=True) == [False, True]


def test_one_probe_goes_and_where_it_fails_the_host_is_left_alone_for_longer(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to(), to(), to())
    for cooled, again in ((1, 2), (2, 4), (4, 4)):  # hours
        assert moved.breakers.enter(to()) is not None
        moved.passes(cooled * HOUR, to())
        start = threading.Barrier(6)

        def enter(_: int, start: threading.Barrier = start) -> timedelta | None:
            start.wait()
            return moved.breakers.enter(to())

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(enter, range(6))).count(None) == 1
        assert near(moved.breakers.failed(to(), may_be_own=False), again * HOUR)
    moved.passes(5 * HOUR, to())
    assert moved.breakers.enter(to()) is None
    moved.breakers.answered(to())
    assert [moved.breakers.enter(to()) for _ in range(6)] == [None] * 6


def test_a_failed_probe_of_the_tenant_that_failed_last_keeps_the_others_away_for_no_longer(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"), to("a"))
    for _ in range(3):
        moved.passes(HOUR, to("a"), to("b"))
        fails(moved, to("a"))
    moved.passes(HOUR, to("a"), to("b"))
    assert moved.breakers.enter(to("b")) is None


def test_a_probe_that_was_not_sent_leaves_its_place_to_another(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to(), to(), to())
    moved.passes(HOUR, to())
    assert moved.breakers.enter(to()) is None
    assert moved.breakers.enter(to(job="2")) is not None
    moved.breakers.back(to())
    assert moved.breakers.enter(to(job="2")) is None


def test_who_waits_stands_in_a_line_that_begins_anew_behind_its_end(moved: Moved) -> None:
    to = at_a_host()
    fails(moved, to("a"), to("b"), to("a"))
    told = [moved.breakers.enter(to("c")) for _ in range(15)]
    for number, wait in enumerate(told):
        assert near(wait, HOUR + number % 13 * BREAKER.apart), number
    assert near(moved.breakers.line(at_a_host()(), after=HOUR), HOUR), "a line of its own"


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
        assert breakers.enter(to()) is not None
        breakers.answered(to())
        assert breakers.enter(to()) is None


_WHO = st.builds(lambda tenant, job: (tenant, f"{tenant}{job}"), st.sampled_from("ab"), st.integers(1, 2))
_ACT = st.one_of(
    st.tuples(st.sampled_from(["enter", "answered", "back", "own", "failed", "line"]), _WHO),
    st.tuples(st.just("passes"), st.sampled_from([timedelta(minutes=31), 2 * HOUR, 5 * HOUR])),
)


@given(acts=st.lists(_ACT, max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_without_redis_the_answers_are_the_same(client: redis.Redis, acts: list[tuple[str, Any]]) -> None:
    both, to = [Moved(client), Moved(None)], at_a_host()
    everybody = [to(tenant, f"{tenant}{job}") for tenant in "ab" for job in (1, 2)]
    for act, how in acts:
        told: list[timedelta | None] = []
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
            assert (shared is None) == (alone is None), act
            assert shared is None or near(shared, alone), act  # type: ignore[arg-type]


def test_the_shipped_breaker_waits_for_no_call_longer_than_its_probe() -> None:
    from pipeline.services import StepSettings

    assert Breaker().probe > StepSettings().send_within + StepSettings().call_deadline
    assert replace(Breaker(), threshold=1).longest < StepSettings().upstream_wait
