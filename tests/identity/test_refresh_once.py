"""Whoever asks, one of them presents the token, and everybody has what that one was given."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis

from identity.accounts.grants import REFRESH
from identity.errors import Unavailable
from identity.model import Leased, NeedsRefresh
from identity.refresh.coordinator import Coordinator
from tests.identity.coordinators import MakeCoordinator, intents
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.world import World


def test_a_refresh_commits_the_new_pair(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    connected.clock.advance(timedelta(minutes=57))
    needed = connected.examine()
    assert isinstance(needed, NeedsRefresh)
    assert make_coordinator().refresh(account, after_generation=needed.generation) == 2
    assert provider.presented == {"refresh-0": 1}
    assert (connected.token(), connected.token(name=REFRESH)) == ("access-1", "refresh-1")
    assert isinstance(connected.examine(), Leased)
    assert connected.grant().expires_at == connected.clock.now + timedelta(hours=1)
    assert connected.audited("grant.refreshed") == 1
    (intent,) = intents(connected)
    assert (intent.state, intent.presented, intent.answer_sealed) == ("committed", 1, None)
    assert [head["x-aswhom-refresh"] for head in provider.heads] == [intent.id]  # so the provider's log names it


@pytest.mark.parametrize("with_redis", [True, False], ids=["with redis", "without redis"])
def test_many_threads_present_once(
    connected: World,
    make_coordinator: MakeCoordinator,
    provider: PretendProvider,
    valkey_client: redis.Redis,
    with_redis: bool,
) -> None:
    account = connected.consent()
    provider.answer = provider.rotate_after(0.2)
    coordinators = [make_coordinator(client=valkey_client if with_redis else None) for _ in range(8)]
    start = threading.Barrier(8)

    def refresh(coordinator: Coordinator) -> int:
        start.wait()
        return coordinator.refresh(account, after_generation=1)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(refresh, coordinators)) == [2] * 8
    assert provider.presented == {"refresh-0": 1}


def test_threads_of_one_process_share_one_refresh_and_its_end(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    coordinator, start = make_coordinator(), threading.Barrier(16)
    provider.answer = provider.rotate_after(0.2)

    def refresh(_: int) -> int:
        start.wait()
        return coordinator.refresh(account, after_generation=1)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(refresh, range(16))) == [2] * 16
    assert provider.presented == {"refresh-0": 1}


def test_whoever_comes_late_gets_the_winners_generation(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    make_coordinator().refresh(account, after_generation=1)
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert provider.presented.total() == 1


def test_the_lock_has_its_whole_time_again_once_the_provider_has_answered(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, valkey_client: redis.Redis
) -> None:
    account = connected.consent()
    lock, nearly_over = f"aswhom:refresh:{account}", 5_000
    left: list[Any] = []

    def late(form: dict[str, str]) -> Reply:
        assert valkey_client.pexpire(lock, nearly_over)
        return provider.rotate(form)

    def look(point: str) -> None:
        if point == "after_answer_stored":
            left.append(valkey_client.pttl(lock))

    provider.answer = late
    assert make_coordinator(client=valkey_client, reached=look).refresh(account, after_generation=1) == 2
    (left_ms,) = left
    assert left_ms > nearly_over
    assert not valkey_client.exists(lock)


def test_who_is_told_not_now_for_a_refused_token_does_not_speak_for_one_that_lives(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    """A flight for a refused token ends without one; a passenger whose token lives is served it all the same."""
    account = connected.consent(lifetime=timedelta(minutes=5))
    coordinator, asked, go = make_coordinator(), threading.Event(), threading.Event()

    def busy(form: dict[str, str]) -> Any:
        asked.set()
        go.wait(60)
        return reply({}, 503, retry_after="30")

    provider.answer = busy
    with ThreadPoolExecutor(2) as pool:
        refused = pool.submit(coordinator.refresh, account, after_generation=1, refused=True)
        asked.wait(60)
        lives = pool.submit(coordinator.refresh, account, after_generation=1)
        go.set()
        with pytest.raises(Unavailable):
            refused.result()
        assert lives.result() == 1
    assert provider.presented.total() == 1


def test_the_old_refresh_token_stays_when_none_is_sent(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"access_token": "access-9", "refresh_token": ""})
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert (connected.token(), connected.token(name=REFRESH)) == ("access-9", "refresh-0")
    assert connected.grant().expires_at == connected.clock.now + timedelta(hours=1)  # the last known lifetime
