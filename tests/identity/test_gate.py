"""The gate of a token endpoint: paces, pauses and the breaker, in Redis and without."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast
from weakref import ref

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from identity.breaker import Breaker, BreakerState, OwnStates
from identity.http.client import Client, HttpRequest, NoAnswer, NotSent
from identity.providers import PROFILES
from identity.providers.pace import CAUTIOUS, Pace
from identity.redis_cooldown import RedisCooldown
from identity.token_endpoint.endpoint import TokenEndpoint
from identity.token_endpoint.gate import AHEAD_KEEPS, Endpoint, Gate
from identity.token_endpoint.line import Rank, Waiter
from tests.servers.valkey import Valkey
from tests.waiting import eventually

_numbers = itertools.count()
HOURLY = Pace(requests=20, per=timedelta(hours=15), burst=5)  # one an hour, after five at once
BREAKER = Breaker(threshold=3, first=timedelta(hours=1), longest=timedelta(hours=4), probe=timedelta(hours=10))
NEAR = timedelta(seconds=30)  # what a slow machine may add, where the steps are hours


@dataclass
class Ticks:
    """A clock that stands until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def endpoint() -> Endpoint:
    return Endpoint(connection=f"forge-{next(_numbers)}", url="https://forge.example/token")


@pytest.fixture(params=["redis", "alone"])
def gate(request: pytest.FixtureRequest) -> Gate:
    client = request.getfixturevalue("valkey_client") if request.param == "redis" else None
    return Gate(client, breaker=BREAKER, prefix="gates:")


def test_a_burst_passes_and_the_next_is_told_when_to_come(gate: Gate) -> None:
    where = endpoint()
    assert [gate.enter(where, HOURLY) for _ in range(5)] == [None] * 5
    wait = gate.enter(where, HOURLY)
    assert wait is not None
    assert timedelta(hours=1) - NEAR < wait <= timedelta(hours=1)
    assert gate.enter(endpoint(), HOURLY) is None


def test_what_nobody_waits_for_leaves_half_of_the_burst_to_others(gate: Gate) -> None:
    where = endpoint()
    assert [gate.enter(where, HOURLY, keep=AHEAD_KEEPS) for _ in range(2)] == [None] * 2
    assert gate.enter(where, HOURLY, keep=AHEAD_KEEPS) is not None
    assert [gate.enter(where, HOURLY) for _ in range(3)] == [None] * 3
    assert gate.enter(where, HOURLY) is not None


def test_looking_counts_nothing(gate: Gate) -> None:
    where = endpoint()
    assert [gate.look(where, HOURLY) for _ in range(20)] == [None] * 20
    assert [gate.enter(where, HOURLY) for _ in range(5)] == [None] * 5
    assert gate.look(where, HOURLY) is not None


def test_a_pause_that_was_asked_for_holds_everybody(gate: Gate) -> None:
    where = endpoint()
    gate.pause(where, timedelta(hours=2))
    gate.pause(where, timedelta(hours=1))  # a shorter one takes nothing back
    wait = gate.enter(where, HOURLY)
    assert wait is not None
    assert wait > timedelta(hours=2) - NEAR
    gate.answered(where)
    assert gate.enter(where, HOURLY) is not None  # someone else's answer was on its way already


def test_failures_in_a_row_open_the_breaker_and_an_answer_between_them_does_not(gate: Gate) -> None:
    where = endpoint()
    for _ in range(2):
        gate.failed(where, took=timedelta())
    gate.answered(where)
    for _ in range(2):
        gate.failed(where, took=timedelta())
    assert gate.enter(where, HOURLY) is None
    gate.failed(where, took=timedelta())
    wait = gate.enter(where, HOURLY)
    assert wait is not None
    assert timedelta(hours=1) - NEAR < wait <= timedelta(hours=1)
    for _ in range(10):  # requests that were on their way: they open nothing anew
        gate.failed(where, took=timedelta())
    later = gate.look(where, HOURLY)
    assert later is not None
    assert later <= wait


def _fill(gate: Gate, where: Endpoint) -> None:
    while gate.enter(where, HOURLY) is None:
        pass


def _fail(gate: Gate, where: Endpoint) -> None:
    for _ in range(BREAKER.threshold):
        gate.failed(where, took=timedelta())


def _hold(gate: Gate, where: Endpoint) -> None:
    gate.pause(where, timedelta(hours=1))


def _pass(ticks: Ticks, client: redis.Redis | None, where: Endpoint, time: timedelta) -> None:
    """So much passes, or is set back: seen from then, what Redis keeps lies so much earlier, or ahead."""
    if client is None:
        ticks.now += time.total_seconds()
        return
    key = f"gates:endpoint:{where}"
    for field in {"due", "held", "open", "probe", "seen"} & set(client.hkeys(key)):
        client.hincrby(key, field, -time // timedelta(microseconds=1))


@pytest.mark.parametrize("close", [_fill, _fail, _hold], ids=lambda close: close.__name__.strip("_"))
@pytest.mark.parametrize("kept", ["redis", "alone"])
def test_a_clock_that_is_set_back_closes_no_endpoint_for_longer(
    request: pytest.FixtureRequest, kept: str, close: Callable[[Gate, Endpoint], None]
) -> None:
    client: redis.Redis | None = request.getfixturevalue("valkey_client") if kept == "redis" else None
    ticks, where, back = Ticks(), endpoint(), timedelta(hours=10)
    gate = Gate(client, breaker=BREAKER, prefix="gates:", monotonic=ticks)
    close(gate, where)
    before = gate.look(where, HOURLY)
    _pass(ticks, client, where, -back)
    after = gate.look(where, HOURLY)
    assert before is not None
    assert after is not None
    assert timedelta(hours=1) - 2 * NEAR < after <= before + NEAR


@pytest.fixture(params=["redis", "alone"])
def quick(request: pytest.FixtureRequest) -> Gate:
    """One whose breaker cools in a moment."""
    client = request.getfixturevalue("valkey_client") if request.param == "redis" else None
    cool = timedelta(milliseconds=50)
    return Gate(client, breaker=replace(BREAKER, first=cool, longest=timedelta(hours=1)), prefix="gates:")


def reopened(gate: Gate, where: Endpoint) -> None:
    """Wait until the breaker lets a probe through."""
    eventually(lambda: gate.look(where, CAUTIOUS) is None, "the breaker lets a probe through")


def test_after_cooling_one_probe_goes_and_the_others_wait_for_it(quick: Gate) -> None:
    where = endpoint()
    for _ in range(3):
        quick.failed(where, took=timedelta())
    reopened(quick, where)
    start = threading.Barrier(8)

    def enter(_: int) -> timedelta | None:
        start.wait()
        return quick.enter(where, CAUTIOUS)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(enter, range(8)))
    assert told.count(None) == 1
    quick.answered(where)
    assert [quick.enter(where, CAUTIOUS) for _ in range(8)] == [None] * 8


@pytest.mark.parametrize("kept", ["redis", "alone"])
def test_a_probe_that_fails_opens_it_for_longer(request: pytest.FixtureRequest, kept: str) -> None:
    client: redis.Redis | None = request.getfixturevalue("valkey_client") if kept == "redis" else None
    ticks, where = Ticks(), endpoint()
    gate = Gate(client, breaker=BREAKER, prefix="gates:", monotonic=ticks)
    _fail(gate, where)
    for opened, again in [(1, 2), (2, 4), (4, 4)]:  # hours
        _pass(ticks, client, where, timedelta(hours=opened))
        assert gate.enter(where, CAUTIOUS) is None
        gate.failed(where, took=timedelta())
        wait = gate.look(where, CAUTIOUS)
        assert wait is not None
        assert timedelta(hours=again) - NEAR < wait <= timedelta(hours=again)


@pytest.mark.parametrize("kept", ["redis", "alone"])
def test_a_request_of_before_the_outage_that_fails_late_is_not_taken_for_the_probe(
    request: pytest.FixtureRequest, kept: str
) -> None:
    client: redis.Redis | None = request.getfixturevalue("valkey_client") if kept == "redis" else None
    ticks, where, after = Ticks(), endpoint(), timedelta(minutes=2)
    gate = Gate(client, breaker=BREAKER, prefix="gates:", monotonic=ticks)
    _fail(gate, where)
    _pass(ticks, client, where, timedelta(hours=1) + after)
    gate.failed(where, took=2 * after)
    assert gate.enter(where, CAUTIOUS) is None, "the endpoint is not left alone for longer"
    gate.failed(where, took=2 * after)
    assert gate.enter(where, CAUTIOUS) is not None, "the probe is still on its way"
    gate.failed(where, took=timedelta())
    wait = gate.look(where, CAUTIOUS)
    assert wait is not None
    assert timedelta(hours=2) - NEAR < wait <= timedelta(hours=2), "it was the second opening"


@pytest.mark.parametrize("kept", ["redis", "alone"])
def test_a_token_request_that_was_sent_before_the_outage_and_fails_after_it_is_not_taken_for_the_probe(
    request: pytest.FixtureRequest, kept: str
) -> None:
    client: redis.Redis | None = request.getfixturevalue("valkey_client") if kept == "redis" else None
    ticks, times, where = Ticks(), Ticks(), endpoint()
    gate = Gate(client, breaker=BREAKER, prefix="gates:", monotonic=ticks)
    takes = timedelta(minutes=4)

    class Slow:
        def send(self, _: HttpRequest, **__: object) -> NoAnswer:
            times.now += takes.total_seconds()
            _pass(ticks, client, where, takes)
            return NoAnswer(reason="timed out")

    asking = TokenEndpoint(client=cast("Client", Slow()), budget=takes, gate=gate, monotonic=times)
    _fail(gate, where)
    _pass(ticks, client, where, timedelta(hours=1) - takes / 2)
    asking.send(HttpRequest(method="POST", url=where.url), to=where)
    assert gate.enter(where, CAUTIOUS) is None, "the endpoint is not left alone for longer"


@pytest.mark.parametrize("kept", ["redis", "alone"])
def test_a_probe_that_was_not_sent_leaves_the_endpoint_to_another(
    request: pytest.FixtureRequest, http: Client, kept: str
) -> None:
    client: redis.Redis | None = request.getfixturevalue("valkey_client") if kept == "redis" else None
    ticks, where = Ticks(), endpoint()
    gate = Gate(client, breaker=BREAKER, prefix="gates:", monotonic=ticks)
    asking = HttpRequest(method="POST", url=where.url)
    _fail(gate, where)
    _pass(ticks, client, where, timedelta(hours=1))
    assert gate.enter(where, CAUTIOUS) is None
    assert gate.enter(where, CAUTIOUS) is not None
    outcome = TokenEndpoint(client=http, budget=NEAR, gate=gate).send(asking, to=where, send_before=0.0)
    assert outcome == NotSent(reason="forge.example: too late to send", untried=True)
    assert gate.enter(where, CAUTIOUS) is None
    assert gate.enter(where, CAUTIOUS) is not None, "another probe is on its way"


@pytest.mark.parametrize("kept", ["redis", "alone"])
def test_who_asks_for_a_pause_takes_nobodys_turn(request: pytest.FixtureRequest, kept: str) -> None:
    client: redis.Redis | None = request.getfixturevalue("valkey_client") if kept == "redis" else None
    ticks, where = Ticks(), endpoint()
    gate = Gate(client, prefix="gates:", monotonic=ticks)
    _fill(gate, where)
    for name in ("gone", "waits"):
        assert gate.look(where, HOURLY, who=Waiter(name)) is not None
    _pass(ticks, client, where, timedelta(hours=1, seconds=40))
    assert gate.paused(where) is None
    assert gate.look(where, HOURLY) is not None, "the turn is another's"
    gate.pause(where, timedelta(hours=3))
    told = gate.paused(where)
    assert told is not None
    assert timedelta(hours=3) - NEAR < told <= timedelta(hours=3)


def test_without_redis_failures_of_long_ago_are_forgotten() -> None:
    ticks, where = Ticks(), endpoint()
    gate = Gate(None, breaker=BREAKER, monotonic=ticks)
    for minutes in (0, 1, 17):
        ticks.now += 60 * minutes
        gate.failed(where, took=timedelta())
    assert gate.look(where, HOURLY) is None


def test_a_process_keeps_no_state_of_what_is_no_longer_asked_for() -> None:
    states, minute = OwnStates(BreakerState), 60_000_000
    left, kept = ref(states.at("left", 0)), states.at("kept", 0)
    kept.open = 10 * minute
    states.at("another", 16 * minute)
    assert left() is None
    assert states.at("kept", 16 * minute) is kept
    assert states.at("kept", 26 * minute) is not kept


OF_ROWS = [pace for profile in PROFILES.values() for pace in (profile.token_pace, profile.api_pace) if pace is not None]


@pytest.mark.parametrize("pace", dict.fromkeys([CAUTIOUS, HOURLY, *OF_ROWS]), ids=str)
def test_no_stretch_of_time_sees_more_than_the_pace_allows(pace: Pace) -> None:
    ticks = Ticks()
    gate, where = Gate(None, monotonic=ticks), endpoint()
    passed: list[float] = []
    end = ticks.now + 3 * pace.per.total_seconds()
    while ticks.now < end:
        wait = gate.enter(where, pace)
        if wait is None:
            passed.append(ticks.now)
        else:
            ticks.now += wait.total_seconds() + 1e-6
    per = pace.per.total_seconds()
    most = max(bisect_left(passed, at + per) - n for n, at in enumerate(passed))
    assert pace.requests - 1 <= most <= pace.requests


def test_without_redis_each_process_has_a_gate_of_its_own_and_asks_redis_again_later(own_valkey: Valkey) -> None:
    ticks, where = Ticks(), endpoint()
    with own_valkey.client() as client:
        ours, other = (
            Gate(client, monotonic=ticks, breaker=BREAKER, cooldown=RedisCooldown(monotonic=ticks)) for _ in range(2)
        )
        for _ in range(5):
            assert ours.enter(where, HOURLY) is None
        assert other.enter(where, HOURLY) is not None  # shared
        own_valkey.kill()
        assert [ours.enter(where, HOURLY) for _ in range(5)] == [None] * 5
        assert ours.enter(where, HOURLY) is not None
        assert other.enter(where, HOURLY) is None
        own_valkey.restart()
        assert ours.enter(where, HOURLY) is not None  # still its own
        ticks.now += 6
        assert ours.enter(where, HOURLY) is not None  # the server kept its state
        own_valkey.flush()
        assert ours.enter(where, HOURLY) is None


WHO = [
    Waiter(name, rank) for rank in (Rank.CONNECT, Rank.REFRESH) for name in (f"{rank}-a", f"{rank}-b", f"{rank}-c", "")
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["enter", "look"]), st.sampled_from([0.0, 0.5]), st.sampled_from(WHO)),
        st.tuples(st.sampled_from(["answered", "back", "paused"])),
        st.tuples(st.just("failed"), st.sampled_from([timedelta(), timedelta(hours=9)])),
        st.tuples(st.just("pause"), st.integers(1, 5).map(lambda hours: timedelta(hours=hours))),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_script_and_the_process_agree(valkey_client: redis.Redis, steps: list[Any]) -> None:
    where = endpoint()
    gates = [Gate(client, breaker=BREAKER, prefix=f"agree-{id(steps)}:") for client in (valkey_client, None)]
    for name, *arguments in steps:
        told = []
        for gate in gates:
            act: Callable[..., timedelta | None] = getattr(gate, name)
            if name == "failed":
                told.append(act(where, took=arguments[0]) or timedelta())
            elif name in ("enter", "look"):
                told.append(act(where, HOURLY, keep=arguments[0], who=arguments[1]) or timedelta())
            else:
                told.append(act(where, *arguments) or timedelta())
        assert abs(told[0] - told[1]) < NEAR, (name, told)
        assert gates[0].waiting([where]) == gates[1].waiting([where])
