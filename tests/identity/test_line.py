"""The line before a full token endpoint: everybody asks a few times, at moments of their own, and people go first."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.client import Pipeline
from redis.commands.core import Script

from identity.providers.github import GITHUB
from identity.providers.pace import CAUTIOUS, Pace
from identity.token_endpoint.gate import AHEAD_KEEPS, CONNECT_KEEPS, STEP_KEEPS, Endpoint, Gate
from identity.token_endpoint.line import Rank, Waiter

GITHUBS = GITHUB.token_pace
CODE_IS_GOOD_FOR = 600  # GitHub's, in seconds
CLAIM = 0.01  # the workers make a hundred claims a second
_numbers = itertools.count()


class Clocked:
    """A client of the real Redis, for a script that reads its server's clock from a key: it stands until moved."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client = client
        self._key = key

    def register_script(self, script: str) -> Script:
        assert script.count('redis.call("TIME")') == 1
        return self._client.register_script(script.replace('redis.call("TIME")', f'redis.call("HVALS", "{self._key}")'))

    def set(self, now: float) -> None:
        micro = int(now * 1_000_000)
        self._client.hset(self._key, mapping={"s": micro // 1_000_000, "us": micro % 1_000_000})

    def empty(self, prefix: str) -> None:
        for key in self._client.scan_iter(match=f"{prefix}*"):
            self._client.delete(key)

    def pipeline(self, *, transaction: bool) -> Pipeline:
        return self._client.pipeline(transaction=transaction)


@dataclass
class Asked:
    """What a fleet did at one endpoint: who asked when, and who passed when."""

    claims: Counter[str] = field(default_factory=Counter)
    at: Counter[int] = field(default_factory=Counter)  # claims by the second
    passed: dict[str, float] = field(default_factory=dict)
    first_told: dict[str, float] = field(default_factory=dict)


class Fleet:
    """Workers of whom a hundred claims a second are made, and people who reload as they are told."""

    def __init__(self, client: redis.Redis | None) -> None:
        self.now = 1_000_000.0
        self.prefix = f"line-{next(_numbers)}:"
        self._shared = None if client is None else Clocked(client, f"clock-of-{self.prefix}")
        self.gate = Gate(self._shared, prefix=self.prefix, monotonic=lambda: self.now)  # type: ignore[arg-type]
        self.where = Endpoint(connection="forge", url="https://forge.example/token")
        self.asked = Asked()
        self.pace = GITHUBS
        self.late: Callable[[str], float | None] = lambda name: 0.0  # None: it does not come back
        self.link: float | None = None  # so many seconds after a person came, the link expires
        self.refusals = 0
        self._expire: dict[str, float] = {}
        self.answers: Callable[[float], bool] = lambda now: True
        self._queue: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._free = 0.0
        self.tick(0)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        if self._shared is not None:
            self._shared.set(self.now)

    def come(self, names: Iterable[str], *, every: float = 0.0, after: float = 0.0) -> None:
        for n, name in enumerate(names):
            heapq.heappush(self._queue, (self.now + after + n * every, next(self._order), name))

    def empty(self) -> None:
        """Redis loses what it held."""
        assert self._shared is not None
        self._shared.empty(self.prefix)

    def waiting(self) -> int:
        """How many stand in line."""
        (number,) = self.gate.waiting([self.where])
        return number

    def run(self, *, until: float = float("inf")) -> Asked:
        """Everybody asks when due, until all have passed or *until*, in seconds from now."""
        end = self.now + until
        while self._queue and self._queue[0][0] <= end:
            due, _, name = heapq.heappop(self._queue)
            is_job = not name.startswith("person")
            self.tick(max(due, self._free if is_job else due, self.now) - self.now)
            if is_job:
                self._free = self.now + CLAIM
            self._ask(name)
        return self.asked

    def _ask(self, name: str) -> None:
        person = name.startswith("person")
        self.asked.claims[name] += 1
        self.asked.at[int(self.now)] += 1
        who = Waiter(name, Rank.CONNECT if person else Rank.REFRESH)
        keep = CONNECT_KEEPS if person else STEP_KEEPS
        wait = self.gate.look(self.where, self.pace, keep=keep, who=who) or self.gate.enter(
            self.where, self.pace, keep=keep, who=who
        )
        if wait is None:
            if self.answers(self.now):
                self.gate.answered(self.where)
                self.asked.passed[name] = self.now
            else:
                self.gate.failed(self.where, took=timedelta())
                self.come([name], after=2)
            return
        self.asked.first_told.setdefault(name, self.now + wait.total_seconds())
        if person and self.link is not None:
            expires = self._expire.setdefault(name, self.now + self.link)
            if self.now + wait.total_seconds() >= expires:  # the person leaves, and comes with a new link
                self.refusals += 1
                self.gate.leave(self.where, who)
                self.come([f"{name}'"], after=60)
                return
        late = self.late(name)
        if late is not None:
            self.come([name], after=(ceil(wait.total_seconds()) if person else wait.total_seconds()) + late)


def jobs(number: int) -> list[str]:
    return [f"job-{n}" for n in range(number)]


@pytest.fixture(params=["redis", "alone"])
def fleet(request: pytest.FixtureRequest) -> Fleet:
    return Fleet(request.getfixturevalue("valkey_client") if request.param == "redis" else None)


@pytest.fixture
def shared(valkey_client: redis.Redis) -> Fleet:
    return Fleet(valkey_client)


def most_in(pace: Pace, passed: Iterable[float]) -> int:
    """The most that passed in any stretch of time as long as the pace's."""
    times, first, most = sorted(passed), 0, 0
    for n, at in enumerate(times):
        while times[first] <= at - pace.per.total_seconds():
            first += 1
        most = max(most, n - first + 1)
    return most


def test_three_thousand_who_wait_ask_three_times_each_at_most_and_no_time_is_lost(shared: Fleet) -> None:
    began = shared.now
    shared.come(jobs(3000))
    asked = shared.run()
    assert len(asked.passed) == 3000
    assert asked.claims.total() <= 3 * 3000
    assert max(asked.claims.values()) <= 5
    assert most_in(GITHUBS, asked.passed.values()) <= GITHUBS.requests
    needed = (3000 - GITHUBS.burst) * GITHUBS.interval.total_seconds()
    assert max(asked.passed.values()) - began < needed * 1.05 + 60


def test_whoever_waits_keeps_its_place_before_those_who_come_later(fleet: Fleet) -> None:
    fleet.come(jobs(400))
    fleet.come((f"later-{n}" for n in range(100)), every=2, after=60)
    asked = fleet.run()
    assert max(asked.passed[name] for name in jobs(400)) < min(
        at for name, at in asked.passed.items() if asked.claims[name] > 1 and name.startswith("later")
    )
    assert asked.claims.total() <= 3 * 500


def test_a_hundred_people_connect_beside_two_thousand_jobs_while_their_codes_are_good(shared: Fleet) -> None:
    shared.come(jobs(2000))
    people = [f"person-{n}" for n in range(100)]
    came = {name: shared.now + 300 + n * 6 for n, name in enumerate(people)}
    shared.come(people, every=6, after=300)
    asked = shared.run(until=1500)
    assert {name for name in people if asked.passed.get(name, 1e12) - came[name] < CODE_IS_GOOD_FOR} == set(people)
    assert asked.claims.total() < 3 * 2100


def test_people_who_come_faster_than_the_pace_are_told_their_own_turns(shared: Fleet) -> None:
    shared.come(jobs(1000))
    people = [f"person-{n}" for n in range(300)]  # in five minutes
    shared.come(people, every=1, after=60)
    asked = shared.run(until=1200)
    told = [asked.first_told[name] for name in people if name in asked.first_told]
    assert len(set(map(round, told))) > 0.8 * len(told) > 50
    assert (
        max(asked.passed[name] - (asked.first_told.get(name) or 0) for name in people if name in asked.first_told) < 5
    )
    assert sum(asked.claims[name] for name in people) <= 2 * 300


def test_after_an_outage_and_in_it_those_who_wait_come_one_by_one(shared: Fleet) -> None:
    began, over = shared.now, 3600
    shared.answers = lambda now: now >= began + over
    shared.come(jobs(800), every=0.1)
    asked = shared.run()
    assert len(asked.passed) == 800
    assert max(number for second, number in asked.at.items() if second > began + 900) <= 10
    assert asked.claims.total() < 9 * 800  # though its breaker opened 15 times
    assert most_in(GITHUBS, asked.passed.values()) <= GITHUBS.requests


def test_a_redis_that_lost_everything_wakes_nobody_and_hands_out_new_places(shared: Fleet) -> None:
    shared.come(jobs(1000))
    shared.run(until=600)
    shared.empty()
    asked = shared.run()
    assert len(asked.passed) == 1000
    assert asked.claims.total() <= 3 * 1000
    assert max(number for second, number in asked.at.items() if second > 1_000_100) <= 5


def test_whoever_never_comes_back_holds_up_nobody(fleet: Fleet) -> None:
    fleet.late = lambda name: None if int(name.removeprefix("job-")) % 2 else 0.0
    fleet.come(jobs(800))
    asked = fleet.run()
    stayed = [name for name in jobs(800) if name in asked.first_told and not int(name.removeprefix("job-")) % 2]
    assert len(stayed) > 300
    assert all(asked.passed[name] < asked.first_told[name] + 10 for name in stayed)
    fleet.tick(60)
    assert fleet.gate.look(fleet.where, fleet.pace, keep=STEP_KEEPS) is None
    assert fleet.waiting() == 0


def test_nobody_waits_for_a_line_that_nobody_comes_back_to(fleet: Fleet) -> None:
    fleet.late = lambda name: None
    fleet.come(jobs(1000))
    fleet.run()
    assert fleet.waiting() > 900
    fleet.tick(60)
    assert fleet.gate.look(fleet.where, fleet.pace, keep=STEP_KEEPS) is None
    fleet.late = lambda name: 0.0
    later = [f"later-{n}" for n in range(300)]  # more than may come at once: they are a line of their own
    came = fleet.now
    fleet.come(later)
    asked = fleet.run()
    assert all(asked.claims[name] <= 2 for name in later)
    assert max(asked.passed[name] for name in later) - came < 300 * GITHUBS.interval.total_seconds()
    assert most_in(GITHUBS, asked.passed.values()) <= GITHUBS.requests


def test_a_line_that_comes_back_after_all_is_waited_for_again(fleet: Fleet) -> None:
    back = fleet.now + 60  # so long no worker was there
    fleet.late = lambda name: max(0.0, back - fleet.now)
    fleet.come(jobs(600))
    fleet.come(["person-1"], after=55)  # meets an endpoint that lies idle
    fleet.come((f"later-{n}" for n in range(200)), every=0.5, after=65)
    asked = fleet.run()
    assert len(asked.passed) == 801
    assert "person-1" not in asked.first_told
    waited = [name for name in asked.first_told if name.startswith("later")]
    assert max(asked.passed[name] for name in jobs(600)) < min(asked.passed[name] for name in waited[60:])
    assert asked.claims.total() <= 3 * 801


def test_people_who_are_refused_and_come_again_keep_nobody_out(fleet: Fleet) -> None:
    fleet.link = CODE_IS_GOOD_FOR
    fleet.come((f"person-{n}" for n in range(700)), every=0.2)
    asked = fleet.run(until=3600)
    assert len(asked.passed) == 700
    assert fleet.refusals < 1500
    assert max(asked.passed.values()) < 1_000_000 + 1300  # GitHub's pace takes 19 minutes for them


def test_workers_who_are_minutes_late_starve_nobody(fleet: Fleet) -> None:
    fleet.late = lambda name: 300.0
    fleet.come(jobs(600))
    asked = fleet.run()
    assert len(asked.passed) == 600
    assert asked.claims.total() <= 3 * 600
    assert most_in(GITHUBS, asked.passed.values()) <= GITHUBS.requests


def test_workers_who_were_all_away_come_back_inside_the_pace(fleet: Fleet) -> None:
    back = fleet.now + 1800
    fleet.late = lambda name: max(0.0, back - fleet.now)
    fleet.come(jobs(600))
    asked = fleet.run()
    assert len(asked.passed) == 600
    assert asked.claims.total() <= 4 * 600
    assert most_in(GITHUBS, asked.passed.values()) <= GITHUBS.requests


@pytest.mark.parametrize(
    "then", [CAUTIOUS, Pace(requests=1000, per=timedelta(hours=1), burst=50)], ids=["more", "less"]
)
def test_a_pace_that_changes_is_followed_at_once(fleet: Fleet, then: Pace) -> None:
    fleet.come(jobs(500))
    fleet.run(until=120)
    fleet.pace = then
    changed = fleet.now
    asked = fleet.run()
    assert len(asked.passed) == 500
    assert most_in(then, (at for at in asked.passed.values() if at > changed)) <= then.requests
    assert asked.claims.total() <= 3 * 500


def test_what_is_ahead_of_need_goes_behind_everybody(fleet: Fleet) -> None:
    fleet.come(jobs(200))
    fleet.run(until=1)
    waiting = fleet.waiting()
    assert waiting > 100
    ahead = fleet.gate.look(fleet.where, fleet.pace, keep=AHEAD_KEEPS)
    assert ahead is not None
    assert ahead > (waiting - 1) * GITHUBS.interval
    assert fleet.waiting() == waiting  # and takes no place


def test_an_answer_closes_the_breaker_for_all_who_wait(fleet: Fleet) -> None:
    for _ in range(5):
        fleet.gate.failed(fleet.where, took=timedelta())
    fleet.come(jobs(50))
    asked = fleet.run()
    assert len(asked.passed) == 50
    assert len({round(at) for at in asked.first_told.values()}) > 40
    assert asked.claims.total() <= 3 * 50


WHO = [
    Waiter(f"{rank}-{n}" if n else "", rank)
    for rank, most in ((Rank.NOW, 0), (Rank.CONNECT, 4), (Rank.REFRESH, 4))
    for n in range(most + 1)
]
ASKS = st.tuples(
    st.sampled_from(["enter", "look"]),
    st.sampled_from([0.0, CONNECT_KEEPS, STEP_KEEPS, AHEAD_KEEPS]),
    st.sampled_from(WHO),
)
ACTS = st.lists(
    st.one_of(
        ASKS,
        ASKS,
        st.tuples(st.just("tick"), st.sampled_from([0.5, 5, 31, 60, 600, 4000, -30])),
        st.tuples(st.just("leave"), st.sampled_from(WHO)),
        st.just(("answered",)),
        st.tuples(st.just("failed"), st.sampled_from([timedelta(), timedelta(seconds=25)])),
        st.tuples(st.just("pause"), st.just(timedelta(seconds=20))),
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_the_script_and_the_process_agree_while_time_passes(valkey_client: redis.Redis, acts: list[Any]) -> None:
    fleets = Fleet(valkey_client), Fleet(None)
    pace = Pace(requests=40, per=timedelta(minutes=1), burst=20)  # three seconds between two
    for name, *arguments in [("enter", 0.0, Waiter())] * 18 + acts:
        told = []
        for fleet in fleets:
            if name == "tick":
                fleet.tick(*arguments)
                fleet.gate.look(fleet.where, pace)  # a clock that was set back is noticed by both now
            elif name in ("enter", "look"):
                told.append(getattr(fleet.gate, name)(fleet.where, pace, keep=arguments[0], who=arguments[1]))
            elif name == "failed":
                fleet.gate.failed(fleet.where, took=arguments[0])
            else:
                getattr(fleet.gate, name)(fleet.where, *arguments)
        assert len(set(told)) <= 1, (name, arguments, told)
        if told:  # until somebody asks, Redis counts who left
            assert fleets[0].waiting() == fleets[1].waiting()


def test_jobs_of_one_account_share_a_place(fleet: Fleet) -> None:
    fleet.come(jobs(100))
    fleet.run(until=2)
    before = fleet.waiting()
    told = [fleet.gate.look(fleet.where, fleet.pace, keep=STEP_KEEPS, who=Waiter("one")) for _ in range(3)]
    assert len(set(told)) == 1
    assert fleet.waiting() == before + 1
