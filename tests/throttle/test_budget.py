"""Budgets of upstreams' rate limits, shared through a real Valkey by whoever draws on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from itertools import count

import pytest
import redis
from prometheus_client import REGISTRY

from identity.model import AccountKey
from pipeline.throttle.budget import UNKNOWN_FLYING, Budget, Budgets
from pipeline.throttle.limits import EndpointClass, Left, Limits, Per
from tests.servers.process import free_port
from tests.servers.valkey import Valkey

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
CORE = EndpointClass(name="core")
_prefixes = count()


@pytest.fixture
def client(valkey: Valkey) -> Iterator[redis.Redis]:
    with valkey.client() as opened:
        yield opened


@pytest.fixture
def prefix() -> str:
    return f"budget-{next(_prefixes)}:"


def budget(tenant: str = "acme", principal: str = "ada", endpoints: EndpointClass = CORE) -> Budget:
    key = AccountKey(tenant=tenant, connection="gh", principal=f"{tenant}.{principal}")
    return Budget(provider="github", account=key, endpoints=endpoints)


def said(remaining: int, *, limit: int = 10, resets_in: timedelta = HOUR) -> Limits:
    return Limits(left=Left(remaining=remaining, limit=limit, resets_in=resets_in))


def drawn(budgets: Budgets, which: Budget, most: int = 100) -> int:
    """How many go through before one has to wait."""
    return next((number for number in range(most) if budgets.enter(which) is not None), most)


def test_what_an_answer_says_is_left_is_what_all_workers_have_together(client: redis.Redis, prefix: str) -> None:
    workers = [Budgets(client, prefix=prefix) for _ in range(3)]
    assert workers[0].enter(budget()) is None
    workers[0].told(budget(), said(7), pause=None)
    passed = [drawn(worker, budget()) for worker in workers]
    assert passed == [7, 0, 0]
    wait = workers[2].enter(budget())
    assert wait is not None
    assert HOUR - 10 * SECOND < wait <= HOUR


def test_what_is_left_is_counted_by_provider_and_endpoints_as_a_share(client: redis.Redis, prefix: str) -> None:
    budgets, search = Budgets(client, prefix=prefix), EndpointClass(name="search")

    def buckets() -> list[float]:
        of = {"provider": "github", "endpoints": "search"}
        read = partial(REGISTRY.get_sample_value, "aswhom_budget_left_bucket")
        return [read(of | {"le": bound}) or 0 for bound in ("0.0", "0.1", "0.25", "1.0", "+Inf")]

    before = buckets()
    for remaining in (0, 2, 9, 20):  # more than the limit is all of it
        budgets.told(budget(endpoints=search), said(remaining), pause=None)
    budgets.told(budget(endpoints=search), Limits(), pause=None)
    budgets.told(budget(), said(2), pause=None)
    assert [now - then for now, then in zip(buckets(), before, strict=True)] == [1, 1, 2, 4, 4]


def test_threads_that_draw_at_once_never_draw_more_than_there_is(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.enter(budget())
    budgets.told(budget(), said(50, limit=60), pause=None)
    passed: list[int] = []
    threads = [threading.Thread(target=lambda: passed.append(drawn(budgets, budget(), most=40))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 50


def test_while_nobody_has_told_how_much_there_is_only_a_few_fly(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    assert drawn(budgets, budget()) == UNKNOWN_FLYING
    budgets.told(budget(), Limits(), pause=None)
    assert drawn(budgets, budget()) == 1
    # What still flies is taken as not counted in what is said.
    budgets.told(budget(), said(10), pause=None)
    assert drawn(budgets, budget()) == 10 - (UNKNOWN_FLYING - 1)


@pytest.mark.parametrize(("configured", "outcome"), [(False, "unconfigured"), (True, "unwatched")])
def test_a_redis_that_is_away_is_told_from_one_that_was_never_meant_to_be(configured: bool, outcome: str) -> None:
    """Nobody is to be called for what was chosen."""

    def counted() -> float:
        labels = {"provider": "github", "endpoints": "core", "outcome": outcome}
        return REGISTRY.get_sample_value("aswhom_budget_requests_total", labels) or 0

    before = counted()
    with redis.Redis(port=free_port()) as away:
        assert Budgets(away if configured else None).enter(budget()) is None
    assert counted() - before == 1


def test_a_late_answer_that_says_more_gives_nothing_back(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.enter(budget())
    budgets.told(budget(), said(3), pause=None)
    budgets.told(budget(), said(9), pause=None)
    assert drawn(budgets, budget()) == 3


def test_what_others_drew_is_learned(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.enter(budget())
    budgets.told(budget(), said(9), pause=None)
    budgets.enter(budget())
    budgets.told(budget(), said(2), pause=None)
    assert drawn(budgets, budget()) == 2


def test_a_new_window_is_as_large_as_the_last(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.enter(budget())
    budgets.told(budget(), said(0, limit=4, resets_in=HOUR), pause=None)
    wait = budgets.enter(budget())
    assert wait is not None
    assert wait <= HOUR
    key = f"{prefix}budget:{budget().whose}:core"
    client.hincrby(key, "resets", -(HOUR // timedelta(microseconds=1)))  # it has passed
    assert drawn(budgets, budget()) == 4


def test_a_window_that_was_said_to_end_in_years_is_asked_about_within_a_day(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.told(budget(), said(0, resets_in=timedelta(days=20_000)), pause=None)
    wait = budgets.enter(budget())
    assert wait is not None
    assert wait <= timedelta(days=1)
    # As an earlier version kept it.
    client.hset(f"{prefix}budget:{budget().whose}:core", "resets", 8 * 10**18)
    (wait, sooner) = (budgets.enter(budget()) for _ in range(2))
    assert wait is not None
    assert sooner is not None
    assert sooner < wait <= timedelta(days=1)


def test_of_two_windows_the_one_that_was_told_of_last_holds(client: redis.Redis, prefix: str) -> None:
    """Not every word is right: one that names a far end must not outlive all that are said after it."""
    budgets = Budgets(client, prefix=prefix)
    budgets.told(budget(), said(3, resets_in=20 * HOUR), pause=None)
    assert budgets.enter(budget()) is None
    budgets.told(budget(), said(9), pause=None)
    assert drawn(budgets, budget()) == 9
    wait = budgets.enter(budget())
    assert wait is not None
    assert wait <= HOUR


def test_a_late_answer_of_the_window_before_says_nothing_of_this_one(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.told(budget(), said(9), pause=None)
    budgets.told(budget(), said(0, resets_in=SECOND), pause=None)
    assert drawn(budgets, budget()) == 9


def test_a_limit_of_nothing_is_none_that_is_known(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.told(budget(), said(0, limit=0), pause=None)
    assert drawn(budgets, budget()) == UNKNOWN_FLYING
    budgets.told(budget(), said(7), pause=None)
    assert drawn(budgets, budget()) == 7 - (UNKNOWN_FLYING - 1)
    # As an earlier version kept it: the window after it is of no known size.
    client.hset(f"{prefix}budget:{budget().whose}:core", mapping={"limit": 0, "remaining": 0, "resets": 1})
    assert drawn(budgets, budget()) == UNKNOWN_FLYING


@pytest.mark.parametrize("pause", [None, HOUR], ids=["used-up", "paused"])
@pytest.mark.parametrize("whole", [False, True], ids=["a-class", "all-of-them"])
def test_a_clock_that_is_set_back_holds_nobody_up_for_longer(
    client: redis.Redis, prefix: str, pause: timedelta | None, whole: bool
) -> None:
    budgets, search, back = Budgets(client, prefix=prefix), EndpointClass(name="search"), timedelta(hours=10)
    for endpoints in (CORE, search):
        limits = Limits(left=Left(remaining=0, limit=10, resets_in=HOUR), whole=whole)
        budgets.told(budget(endpoints=endpoints), limits, pause=pause)
    for key in client.keys(f"{prefix}*"):  # seen from a clock that was set back, what is kept lies ahead
        for field in {"resets", "held", "seen"} & set(client.hkeys(key)):
            client.hincrby(key, field, back // timedelta(microseconds=1))
    for endpoints in (CORE, search, CORE):
        wait = budgets.enter(budget(endpoints=endpoints))
        assert wait is not None
        assert HOUR - 20 * SECOND < wait <= HOUR


def test_a_draw_that_was_not_sent_is_given_back(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.enter(budget())
    budgets.told(budget(), said(1), pause=None)
    assert budgets.enter(budget()) is None
    budgets.give_back(budget())
    assert drawn(budgets, budget()) == 1


def test_one_accounts_empty_budget_keeps_no_other_account_and_no_other_tenant(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.enter(budget())
    budgets.told(budget(), said(0), pause=HOUR)
    assert budgets.enter(budget()) is not None
    assert budgets.enter(budget(principal="grace")) is None
    assert budgets.enter(budget("globex")) is None


def test_a_pause_is_of_its_class_and_a_secondary_limit_of_every_class(client: redis.Redis, prefix: str) -> None:
    budgets, search = Budgets(client, prefix=prefix), EndpointClass(name="search")
    budgets.told(budget(endpoints=search), Limits(), pause=HOUR)
    assert budgets.enter(budget(endpoints=search)) is not None
    assert budgets.enter(budget()) is None
    budgets.told(budget(), Limits(whole=True), pause=HOUR)
    wait = Budgets(client, prefix=prefix).enter(budget())
    assert wait is not None
    assert wait > HOUR - 10 * SECOND
    assert budgets.enter(budget("globex", endpoints=search)) is None


def test_where_a_workspace_is_counted_its_people_draw_on_one_budget(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    post = EndpointClass(name="chat.postMessage", per=Per.TENANT)
    budgets.told(budget(endpoints=post), Limits(), pause=HOUR)
    assert budgets.enter(budget(principal="grace", endpoints=post)) is not None
    assert budgets.enter(budget("globex", endpoints=post)) is None


def test_without_redis_nothing_is_held_up_and_a_redis_that_failed_is_left_alone_for_a_while(own_valkey: Valkey) -> None:
    assert drawn(Budgets(None), budget()) == 100
    now = [0.0]
    with own_valkey.client() as client:
        budgets = Budgets(client, monotonic=lambda: now[0])
        budgets.told(budget(), Limits(), pause=HOUR)
        assert budgets.enter(budget()) is not None
        own_valkey.kill()
        assert budgets.enter(budget()) is None
        own_valkey.start()
        budgets.told(budget(), Limits(), pause=HOUR)  # not asked yet
        assert budgets.enter(budget()) is None
        now[0] = 6.0
        budgets.told(budget(), Limits(), pause=HOUR)
        assert budgets.enter(budget()) is not None


def test_what_nobody_draws_on_any_more_leaves_redis(client: redis.Redis, prefix: str) -> None:
    budgets = Budgets(client, prefix=prefix)
    budgets.enter(budget())
    budgets.told(budget(), Limits(whole=True), pause=HOUR)
    keys = client.keys(f"{prefix}*")
    assert len(keys) == 2
    assert all(0 < client.ttl(key) <= 7205 for key in keys)
