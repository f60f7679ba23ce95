"""How long callers wait for another's refresh, as the metric has it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import redis
from prometheus_client import REGISTRY

from identity.errors import Unavailable
from tests.identity.coordinators import BUDGET, MakeCoordinator
from tests.identity.providers import PretendProvider, Reply
from tests.identity.world import World


def waits() -> tuple[int, float]:
    """How many callers' waits were observed, and how long they were together."""
    name = "aswhom_refresh_lock_wait_seconds"
    count, total = (REGISTRY.get_sample_value(f"{name}_{of}") for of in ("count", "sum"))
    assert count is not None
    assert total is not None
    return int(count), total


@pytest.mark.parametrize("together", [True, False], ids=["of one process", "of two processes"])
def test_every_callers_wait_is_observed_once_and_a_refresh_is_no_wait(
    connected: World,
    make_coordinator: MakeCoordinator,
    provider: PretendProvider,
    valkey_client: redis.Redis,
    together: bool,
) -> None:
    account = connected.consent()
    asked, go, began_to_wait = threading.Event(), threading.Event(), threading.Event()

    def monotonic() -> float:
        """A caller's wait begins with its first look at the clock; none but the second's comes meanwhile."""
        now = time.monotonic()
        if asked.is_set():
            began_to_wait.set()
        return now

    winner = make_coordinator(client=valkey_client, monotonic=monotonic)
    waiter = winner if together else make_coordinator(client=valkey_client, monotonic=monotonic)

    def late(form: dict[str, str]) -> Reply:
        asked.set()
        go.wait(60)
        return provider.rotate_after(0.1)(form)

    provider.answer = late
    (observed, waited), began = waits(), time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(winner.refresh, account, after_generation=1)
        assert asked.wait(60)
        second = pool.submit(waiter.refresh, account, after_generation=1)
        assert began_to_wait.wait(60)
        go.set()
        assert (first.result(), second.result()) == (2, 2)
    count, total = waits()
    assert count - observed == 2
    # The second's wait began when the first's was over: that one waits for its provider, not for its turn.
    assert 0.1 <= total - waited <= time.monotonic() - began


@pytest.mark.parametrize("together", [True, False], ids=["of one process", "of two processes"])
def test_the_wait_of_a_caller_that_gives_up_is_observed_too(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, together: bool
) -> None:
    account = connected.consent()
    short = replace(BUDGET, wait=timedelta(seconds=1))
    winner = make_coordinator(budget=short)
    # Without Redis the lock is everyone's: it finds the intent open, and looks again and again.
    waiter = winner if together else make_coordinator(budget=short)
    asked, go = threading.Event(), threading.Event()

    def late(form: dict[str, str]) -> Reply:
        asked.set()
        go.wait(60)
        return provider.rotate(form)

    provider.answer = late
    (observed, waited), began = waits(), time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(winner.refresh, account, after_generation=1)
        assert asked.wait(60)
        with pytest.raises(Unavailable, match="is being refreshed"):
            waiter.refresh(account, after_generation=1)
        go.set()
        assert first.result() == 2
    count, total = waits()
    assert count - observed == 2
    assert 1 <= total - waited <= time.monotonic() - began
