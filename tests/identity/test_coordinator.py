"""The coordinator against a real HTTP server: one presentation, and every way a refresh can end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
import redis
from prometheus_client import REGISTRY
from sqlalchemy import Connection, event, select, update

from identity.connections import paused_reason, resume_connection
from identity.errors import GrantRevoked, Misconfigured, ReauthRequired, Unavailable
from identity.grants import REFRESH
from identity.http import Answer, Client
from identity.inferred_death import infer_death
from identity.model import MINTED, AccountKey, AccountState, Credential, Leased, NeedsRefresh, Scope, ScopeKind
from identity.narrowing import rescope
from identity.providers import PROFILES
from identity.providers.profile import Profile
from identity.refresh.coordinator import Coordinator, RefreshBudget
from identity.refresh.endings import Superseded
from identity.refresh.intents import RefreshIntent, kept_answers, store_answer
from identity.refresh.lock import RefreshLock
from identity.refresh.settlement import Settlement
from identity.refresh.situation import read_situation
from identity.secret import Secret
from identity.sequence import lock_exclusive
from identity.stale_access import drop_access
from identity.store import Store
from identity.tables import grants, provider_connections, refresh_intents
from identity.token_endpoint import pack
from identity.withdrawals import take_grant
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.stores import EngineStore
from tests.identity.world import ANNA, ROBOT, START, World

ACCOUNT = Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA))
BUDGET = RefreshBudget(
    send=timedelta(seconds=2),
    http=timedelta(seconds=2),
    store=timedelta(seconds=2),
    wait=timedelta(seconds=5),
    poll=timedelta(milliseconds=20),
)
# For a provider that answers when the test says so.
UNHURRIED = replace(BUDGET, http=timedelta(seconds=30), wait=timedelta(seconds=30))


class Killed(BaseException):
    """The process dies at a crash point."""


T = TypeVar("T")
Make = Callable[..., Coordinator]
Answers = Callable[[dict[str, str]], Reply | None]


@pytest.fixture
def make(connected: World, http: Client) -> Make:
    def build(
        *,
        client: redis.Redis | None = None,
        profile: Profile | None = None,
        die_at: str | None = None,
        budget: RefreshBudget = BUDGET,
        reached: Callable[[str], None] | None = None,
        restored: Callable[[Connection, AccountKey], None] = lambda connection, key: None,
        store: Store | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Coordinator:
        def dies(point: str) -> None:
            if point == die_at:
                raise Killed(point)

        lock = RefreshLock(client, ttl=budget.lock_ttl, token=connected.id)
        profiles = dict(PROFILES) | ({"github": profile} if profile else {})
        return Coordinator(
            store or connected.store,
            connected.vault,
            http,
            lock,
            profiles,
            clock=connected.clock,
            ids=connected.id,
            budget=budget,
            reached=reached or dies,
            restored=restored,
            monotonic=monotonic,
        )

    return build


def intents(world: World) -> list[Any]:
    statement = select(refresh_intents).order_by(refresh_intents.c.generation)
    return list(world.store.read(lambda connection: connection.execute(statement).all()))


def test_a_refresh_commits_the_new_pair(connected: World, make: Make, provider: PretendProvider) -> None:
    account = connected.consent()
    connected.clock.advance(timedelta(minutes=57))
    needed = connected.examine()
    assert isinstance(needed, NeedsRefresh)
    assert make().refresh(account, after_generation=needed.generation) == 2
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
    connected: World, make: Make, provider: PretendProvider, valkey_client: redis.Redis, with_redis: bool
) -> None:
    account = connected.consent()
    provider.answer = slowly(provider, 0.2)
    coordinators = [make(client=valkey_client if with_redis else None) for _ in range(8)]
    start = threading.Barrier(8)

    def refresh(coordinator: Coordinator) -> int:
        start.wait()
        return coordinator.refresh(account, after_generation=1)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(refresh, coordinators)) == [2] * 8
    assert provider.presented == {"refresh-0": 1}


def test_the_lock_has_its_whole_time_again_once_the_provider_has_answered(
    connected: World, make: Make, provider: PretendProvider, valkey_client: redis.Redis
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
    assert make(client=valkey_client, reached=look).refresh(account, after_generation=1) == 2
    (left_ms,) = left
    assert left_ms > nearly_over
    assert not valkey_client.exists(lock)


def slowly(provider: PretendProvider, seconds: float) -> Callable[[dict[str, str]], Any]:
    def answer(form: dict[str, str]) -> Any:
        threading.Event().wait(seconds)
        return provider.rotate(form)

    return answer


def waits() -> tuple[int, float]:
    """How many callers' waits were observed, and how long they were together."""
    name = "aswhom_refresh_lock_wait_seconds"
    count, total = (REGISTRY.get_sample_value(f"{name}_{of}") for of in ("count", "sum"))
    assert count is not None
    assert total is not None
    return int(count), total


@pytest.mark.parametrize("together", [True, False], ids=["of one process", "of two processes"])
def test_every_callers_wait_is_observed_once_and_a_refresh_is_no_wait(
    connected: World, make: Make, provider: PretendProvider, valkey_client: redis.Redis, together: bool
) -> None:
    account = connected.consent()
    asked, go, began_to_wait = threading.Event(), threading.Event(), threading.Event()

    def monotonic() -> float:
        """A caller's wait begins with its first look at the clock; none but the second's comes meanwhile."""
        now = time.monotonic()
        if asked.is_set():
            began_to_wait.set()
        return now

    winner = make(client=valkey_client, budget=UNHURRIED, monotonic=monotonic)
    waiter = winner if together else make(client=valkey_client, budget=UNHURRIED, monotonic=monotonic)

    def late(form: dict[str, str]) -> Reply:
        asked.set()
        go.wait(10)
        return slowly(provider, 0.1)(form)  # type: ignore[no-any-return]

    provider.answer = late
    (observed, waited), began = waits(), time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(winner.refresh, account, after_generation=1)
        assert asked.wait(10)
        second = pool.submit(waiter.refresh, account, after_generation=1)
        assert began_to_wait.wait(10)
        go.set()
        assert (first.result(), second.result()) == (2, 2)
    count, total = waits()
    assert count - observed == 2
    # The second's wait began when the first's was over: that one waits for its provider, not for its turn.
    assert 0.1 <= total - waited <= time.monotonic() - began


@pytest.mark.parametrize("together", [True, False], ids=["of one process", "of two processes"])
def test_the_wait_of_a_caller_that_gives_up_is_observed_too(
    connected: World, make: Make, provider: PretendProvider, together: bool
) -> None:
    account = connected.consent()
    short = replace(UNHURRIED, wait=timedelta(seconds=1))
    winner = make(budget=short)
    # Without Redis the lock is everyone's: it finds the intent open, and looks again and again.
    waiter = winner if together else make(budget=short)
    asked, go = threading.Event(), threading.Event()

    def late(form: dict[str, str]) -> Reply:
        asked.set()
        go.wait(10)
        return provider.rotate(form)

    provider.answer = late
    (observed, waited), began = waits(), time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(winner.refresh, account, after_generation=1)
        assert asked.wait(10)
        with pytest.raises(Unavailable, match="is being refreshed"):
            waiter.refresh(account, after_generation=1)
        go.set()
        assert first.result() == 2
    count, total = waits()
    assert count - observed == 2
    assert 1 <= total - waited <= time.monotonic() - began


def test_whoever_comes_late_gets_the_winners_generation(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    make().refresh(account, after_generation=1)
    assert make().refresh(account, after_generation=1) == 2
    assert provider.presented.total() == 1


@pytest.mark.parametrize("point", ["before_send", "after_send"])
def test_a_crash_without_a_stored_answer_needs_a_person_and_never_presents_again(
    connected: World, make: Make, provider: PretendProvider, point: str
) -> None:
    account = connected.consent()
    with pytest.raises(Killed):
        make(die_at=point).refresh(account, after_generation=1)
    connected.clock.advance(timedelta(seconds=5))
    assert make().settle_abandoned() == 1
    assert connected.state() is AccountState.NEEDS_RECONNECT
    with pytest.raises(ReauthRequired):
        make().refresh(account, after_generation=1)
    assert provider.presented.total() == (0 if point == "before_send" else 1)
    assert make().settle_abandoned() == 0


def test_a_crash_after_the_answer_was_stored_is_recovered(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    with pytest.raises(Killed):
        make(die_at="after_answer_stored").refresh(account, after_generation=1)
    assert connected.generation() == 1
    assert make().refresh(account, after_generation=1) == 2
    assert provider.presented == {"refresh-0": 1}
    assert connected.token() == "access-1"


def test_an_answer_that_nobody_can_read_holds_up_no_other_account(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    for key in (ANNA, ROBOT):
        account = connected.consent(key)
        with pytest.raises(Killed):
            make(die_at="after_answer_stored").refresh(account, after_generation=1)
        connected.clock.advance(timedelta(seconds=1))
    anna = connected.store.read(lambda c: read_situation(c, connected.account(ANNA).id))
    unread = connected.vault.seal(Secret("no answer"), anna.answer_binding)
    of_anna = update(refresh_intents).where(refresh_intents.c.account_id == anna.account.id)
    connected.store.write(lambda c: c.execute(of_anna.values(answer_sealed=unread)).rowcount)
    connected.clock.advance(timedelta(seconds=5))
    for _ in range(2):
        with pytest.raises(ExceptionGroup):
            make().settle_abandoned(page=1)
        assert (connected.generation(ANNA), connected.generation(ROBOT)) == (1, 2)


def test_housekeeping_recovers_a_stored_answer(connected: World, make: Make, provider: PretendProvider) -> None:
    connected.consent()
    with pytest.raises(Killed):
        make(die_at="after_answer_stored").refresh(connected.account().id, after_generation=1)
    assert make().settle_abandoned() == 0  # not yet due
    connected.clock.advance(timedelta(seconds=5))
    assert make().settle_abandoned() == 1
    assert (connected.generation(), connected.state()) == (2, AccountState.ACTIVE)


def test_a_crash_after_the_commit_loses_nothing(connected: World, make: Make) -> None:
    account = connected.consent()
    with pytest.raises(Killed):
        make(die_at="after_commit").refresh(account, after_generation=1)
    assert make().refresh(account, after_generation=1) == 2


def test_a_lost_answer_is_unknown_and_asks_for_a_person(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: None
    with pytest.raises(ReauthRequired):
        make().refresh(account, after_generation=1)
    assert connected.state() is AccountState.NEEDS_RECONNECT
    assert provider.presented == {"refresh-0": 1}
    assert connected.audited("grant.unknown") == 1


@pytest.mark.parametrize("said_by", ["row", "operator"])
def test_a_verified_grace_window_allows_one_more_presentation(
    connected: World, make: Make, provider: PretendProvider, said_by: str
) -> None:
    graceful = replace(PROFILES["github"], grace_seconds=60)
    if said_by == "operator":
        graceful = replace(PROFILES["github"], name="oauth2")  # a server of one's own, else like GitHub's
        said = update(provider_connections).values(config={"grace_seconds": "60"})
        connected.store.write(lambda c: c.execute(said).rowcount)
    account = connected.consent()
    provider.answer = lambda form: provider.rotate(form) if provider.presented.total() > 1 else None
    assert make(profile=graceful).refresh(account, after_generation=1) == 2
    assert provider.presented == {"refresh-0": 2}
    (intent,) = intents(connected)
    assert (intent.state, intent.presented) == ("committed", 2)


def test_a_grace_window_allows_no_third_presentation(connected: World, make: Make, provider: PretendProvider) -> None:
    graceful = replace(PROFILES["github"], grace_seconds=60)
    account = connected.consent()
    provider.answer = lambda form: None
    with pytest.raises(ReauthRequired):
        make(profile=graceful).refresh(account, after_generation=1)
    assert provider.presented == {"refresh-0": 2}
    assert connected.state() is AccountState.NEEDS_RECONNECT


@pytest.mark.parametrize(("window", "presented"), [(60, 2), (30, 1)])
def test_after_a_crash_it_is_presented_again_inside_a_window_that_outlasts_the_wait_for_the_crashed_one(
    connected: World, make: Make, provider: PretendProvider, window: int, presented: int
) -> None:
    """Whoever crashed might still be sending: until `settled_by` nobody can know, and the next may take `send`."""
    graceful, budget = replace(PROFILES["github"], grace_seconds=window), RefreshBudget()
    account = connected.consent()
    with pytest.raises(Killed):
        make(profile=graceful, die_at="after_send", budget=budget).refresh(account, after_generation=1)
    (intent,) = intents(connected)
    assert intent.settled_by == connected.clock.now + budget.send + budget.http
    connected.clock.advance(timedelta(seconds=26))
    again = make(profile=graceful, budget=budget)
    if presented == 2:
        assert again.refresh(account, after_generation=1) == 2
    else:
        with pytest.raises(ReauthRequired):
            again.refresh(account, after_generation=1)
    assert provider.presented == {"refresh-0": presented}


@pytest.mark.parametrize("second", ["busy", "unreachable"])
def test_a_second_presentation_without_effect_leaves_the_first_one_in_doubt(
    connected: World, make: Make, provider: PretendProvider, second: str
) -> None:
    """Else the token would be shown a third time, long after the provider takes that for theft."""
    graceful = replace(PROFILES["github"], grace_seconds=60)
    account = connected.consent(lifetime=timedelta(minutes=1))

    def lose_the_first(form: dict[str, str]) -> Reply | None:
        if provider.presented.total() > 1:
            return reply({}, 503)
        if second == "unreachable":
            gone = update(provider_connections).values(token_url="http://127.0.0.1:1/token")
            connected.store.write(lambda c: c.execute(gone).rowcount)
        return None

    provider.answer = lose_the_first
    assert make(profile=graceful).refresh(account, after_generation=1) == 1  # its token still lives
    connected.clock.advance(timedelta(minutes=2))
    with pytest.raises(ReauthRequired, match="no known outcome"):
        make(profile=graceful).refresh(account, after_generation=1)
    assert provider.presented == {"refresh-0": 2 if second == "busy" else 1}
    (intent,) = intents(connected)
    assert (intent.state, intent.presented) == ("unknown", provider.presented.total())
    assert connected.state() is AccountState.NEEDS_RECONNECT


def test_a_second_presentation_leaves_no_later_than_its_window_ends(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    graceful = replace(PROFILES["github"], grace_seconds=60)
    account = connected.consent(lifetime=timedelta(minutes=5))
    with pytest.raises(Killed):
        make(profile=graceful, die_at="after_send").refresh(account, after_generation=1)
    connected.clock.advance(timedelta(seconds=59))  # of the two seconds in which it may leave, one is too late
    with pytest.raises(ReauthRequired):
        make(profile=graceful).refresh(account, after_generation=1)
    assert provider.presented == {"refresh-0": 1}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_transient_answer_serves_what_still_lives(
    connected: World, make: Make, provider: PretendProvider, status: int
) -> None:
    account = connected.consent(lifetime=timedelta(minutes=1))
    provider.answer = lambda form: reply({"error": "invalid_grant"}, status, retry_after="30")
    assert make().refresh(account, after_generation=1) == 1
    assert make().refresh(account, after_generation=1) == 1
    assert provider.presented.total() == 1  # the second one waits for the provider's retry-after
    connected.clock.advance(timedelta(minutes=2))
    with pytest.raises(Unavailable):
        make().refresh(account, after_generation=1)
    provider.answer = provider.rotate
    connected.clock.advance(timedelta(minutes=1))
    assert make().refresh(account, after_generation=1) == 2
    assert connected.state() is AccountState.ACTIVE


def test_a_token_refused_upstream_is_not_served_again(connected: World, make: Make, provider: PretendProvider) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({}, 503, retry_after="30")
    with pytest.raises(Unavailable) as error:
        make().refresh(account, after_generation=1, refused=True)
    assert error.value.retry_after == timedelta(seconds=30)


def test_a_provider_that_cannot_be_reached_is_transient_and_uncounted(store: Any, http: Client) -> None:
    world = World(store=store, url="http://127.0.0.1:9").build()
    account = world.consent(lifetime=timedelta(minutes=1))
    lock = RefreshLock(None, ttl=BUDGET.lock_ttl, token=world.id)
    coordinator = Coordinator(
        world.store, world.vault, http, lock, PROFILES, clock=world.clock, ids=world.id, budget=BUDGET
    )
    assert coordinator.refresh(account, after_generation=1) == 1
    (intent,) = intents(world)
    assert (intent.state, intent.presented) == ("failed", 0)


def test_a_refused_client_pauses_the_connection_and_touches_no_grant(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "incorrect_client_credentials"})
    with pytest.raises(Misconfigured):
        make().refresh(account, after_generation=1)
    assert connected.state() is AccountState.ACTIVE
    assert connected.generation() == 1
    assert connected.store.read(lambda connection: paused_reason(connection, "forge"))
    assert make().refresh(account, after_generation=1) == 1  # what still lives is served
    with pytest.raises(Misconfigured, match="paused"):
        make().refresh(account, after_generation=1, refused=True)
    connected.clock.advance(timedelta(hours=1))
    with pytest.raises(Misconfigured, match="paused"):
        make().refresh(account, after_generation=1)
    assert provider.presented.total() == 1


def test_an_answer_to_what_was_asked_before_a_resume_pauses_nothing_again(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    """The operator has mended it at the provider meanwhile: what was asked since is what counts."""
    account = connected.consent()
    provider.refuse_client_after(lambda: connected.store.write(lambda c: resume_connection(c, "forge")))
    assert make().refresh(account, after_generation=1) == 2
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None
    assert connected.audited("connection.paused") == 0
    provider.answer = lambda form: reply({"error": "incorrect_client_credentials"})
    with pytest.raises(Misconfigured):
        make().refresh(account, after_generation=2)
    assert connected.store.read(lambda connection: paused_reason(connection, "forge"))


def test_a_refusal_of_the_client_before_a_correction_does_not_pause_the_one_after(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    """The request was made before the correction, and its intent has a number after it."""
    account = connected.consent()
    correct = update(provider_connections).values(client_id="right")
    provider.refuse_client_after(lambda: connected.store.write(lambda c: c.execute(correct).rowcount))
    assert make().refresh(account, after_generation=1) == 2
    assert provider.forms[-1]["client_id"] == "right"
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None
    assert connected.audited("connection.paused") == 0


@pytest.mark.parametrize("code", ["invalid_grant", "bad_refresh_token"])
def test_a_dead_grant_waits_for_a_person(connected: World, make: Make, provider: PretendProvider, code: str) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": code})
    with pytest.raises(ReauthRequired):
        make().refresh(account, after_generation=1)
    grant = connected.grant()
    assert (grant.generation, grant.access_sealed, grant.refresh_sealed) == (2, None, None)
    assert connected.state() is AccountState.NEEDS_RECONNECT
    connected.consent()
    assert isinstance(connected.examine(), Leased)
    assert connected.generation() == 3


def test_a_loser_never_kills_the_winner(connected: World, make: Make, provider: PretendProvider) -> None:
    account = connected.consent()

    def reconnected_meanwhile(form: dict[str, str]) -> Any:
        connected.consent()
        return reply({"error": "invalid_grant"})

    provider.answer = reconnected_meanwhile
    assert make().refresh(account, after_generation=1) == 2
    assert connected.state() is AccountState.ACTIVE
    assert connected.token() == "access-0"


def test_an_answer_after_a_consent_is_shredded(connected: World, make: Make, provider: PretendProvider) -> None:
    account = connected.consent()

    def reconnected_meanwhile(form: dict[str, str]) -> Any:
        connected.consent()
        return provider.rotate(form)

    provider.answer = reconnected_meanwhile
    assert make().refresh(account, after_generation=1) == 2
    assert connected.token() == "access-0"
    assert [(row.state, row.answer_sealed) for row in intents(connected)] == [("discarded", None)]


@pytest.mark.parametrize(
    "scope",
    [
        Scope(kind=ScopeKind.TENANT, key="acme"),
        Scope(kind=ScopeKind.CONNECTION, key="forge"),
        Scope(kind=ScopeKind.USER, key="anna"),
        ACCOUNT,
    ],
    ids=str,
)
def test_an_answer_after_a_revocation_is_kept_only_to_be_revoked(
    connected: World, make: Make, provider: PretendProvider, scope: Scope
) -> None:
    account = connected.consent()

    def revoked_meanwhile(form: dict[str, str]) -> Any:
        connected.revoke(scope)
        return provider.rotate(form)

    provider.answer = revoked_meanwhile
    with pytest.raises(GrantRevoked):
        make().refresh(account, after_generation=1)
    assert connected.generation() == 1
    (kept,) = connected.store.read(lambda connection: kept_answers(connection, account))
    assert kept.answer_sealed is not None
    assert b"access-1" not in kept.answer_sealed


def test_an_answer_after_a_revocation_is_kept_to_be_revoked_though_a_consent_followed(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()

    def revoked_and_connected_anew(form: dict[str, str]) -> Any:
        connected.revoke(ACCOUNT)
        connected.consent()
        return provider.rotate(form)

    provider.answer = revoked_and_connected_anew
    assert make().refresh(account, after_generation=1) == 2
    assert connected.token() == "access-0"  # the new consent's
    (kept,) = connected.store.read(lambda connection: kept_answers(connection, account))
    assert (kept.generation, kept.answer_sealed is not None) == (1, True)


def test_an_answer_that_comes_after_its_refresh_was_taken_for_abandoned_and_discarded_is_kept_to_be_revoked(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()

    def revoked_and_given_up(form: dict[str, str]) -> Any:
        connected.revoke(ACCOUNT)
        connected.clock.advance(timedelta(seconds=30))
        assert make().settle_abandoned() == 1
        assert [(row.state, row.answer_sealed) for row in intents(connected)] == [("discarded", None)]
        return provider.rotate(form)

    provider.answer = revoked_and_given_up
    with pytest.raises(GrantRevoked):
        make().refresh(account, after_generation=1)
    (kept,) = connected.store.read(lambda connection: kept_answers(connection, account))
    assert (kept.generation, kept.answer_sealed is not None) == (1, True)
    assert connected.store.write(lambda c: store_answer(c, kept.id, b"another")) is False
    assert connected.store.read(lambda connection: kept_answers(connection, account)) == [kept]


def test_nothing_is_presented_after_a_revocation(connected: World, make: Make, provider: PretendProvider) -> None:
    account = connected.consent()
    connected.revoke(Scope(kind=ScopeKind.USER, key="anna"))
    with pytest.raises(GrantRevoked):
        make().refresh(account, after_generation=1)
    assert provider.presented.total() == 0


def test_the_old_refresh_token_stays_when_none_is_sent(connected: World, make: Make, provider: PretendProvider) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"access_token": "access-9", "refresh_token": ""})
    assert make().refresh(account, after_generation=1) == 2
    assert (connected.token(), connected.token(name=REFRESH)) == ("access-9", "refresh-0")
    assert connected.grant().expires_at == connected.clock.now + timedelta(hours=1)  # the last known lifetime


def _given_up_meanwhile(world: World, make: Make, answer: Answers) -> Answers:
    """*answer*, once its refresh was taken for abandoned."""

    def late(form: dict[str, str]) -> Reply | None:
        world.clock.advance(timedelta(seconds=30))
        assert make().settle_abandoned() == 1
        assert world.state() is AccountState.NEEDS_RECONNECT
        return answer(form)

    return late


def test_a_late_answer_brings_back_an_account_that_was_given_up(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = _given_up_meanwhile(connected, make, provider.rotate)
    woken: list[AccountKey] = []
    assert make(restored=lambda connection, key: woken.append(key)).refresh(account, after_generation=1) == 2
    assert connected.state() is AccountState.ACTIVE
    assert connected.token() == "access-1"
    assert woken == [ANNA]


def test_a_late_answer_without_effect_brings_it_back_too(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = _given_up_meanwhile(connected, make, lambda form: reply({}, 503))
    woken: list[AccountKey] = []
    assert make(restored=lambda connection, key: woken.append(key)).refresh(account, after_generation=1) == 1
    assert (connected.state(), woken) == (AccountState.ACTIVE, [ANNA])


def test_a_refresh_without_effect_does_not_undo_a_death_that_was_inferred_meanwhile(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()

    def refused_meanwhile(form: dict[str, str]) -> Any:
        audit_id, now = connected.id(), connected.clock.now
        assert connected.store.write(
            lambda connection: infer_death(connection, account, generation=1, audit_id=audit_id, now=now)
        )
        return reply({}, 503)

    provider.answer = refused_meanwhile
    woken: list[AccountKey] = []
    make(restored=lambda connection, key: woken.append(key)).refresh(account, after_generation=1)
    assert (connected.state(), woken) == (AccountState.NEEDS_RECONNECT, [])


class OvertakenStore:
    """Has *first* done before its next write, or within it: before that changes the intent."""

    def __init__(self, inner: EngineStore, first: Callable[[], None], *, within: bool) -> None:
        self._inner = inner
        self._first = [first]
        self._within = within

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._inner.read(fn)

    def write(self, fn: Callable[[Connection], T]) -> T:
        if not self._within:
            self._overtake()
        with self._inner.engine.begin() as connection:

            @event.listens_for(connection, "before_cursor_execute")
            def _look(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
                if statement.startswith("UPDATE refresh_intents"):
                    self._overtake()

            return fn(connection)

    def _overtake(self) -> None:
        while self._first:
            self._first.pop()()


@pytest.mark.parametrize("within", [False, True], ids=["before", "within"])
@pytest.mark.parametrize("looked", [False, True], ids=["for the first time", "again"])
def test_an_answer_that_is_stored_while_its_refresh_is_being_given_up_is_not_lost(
    connected: World, make: Make, provider: PretendProvider, within: bool, looked: bool
) -> None:
    """Its owner stood still for so long that somebody takes it for gone, and wakes as that is being written down."""
    within = within and connected.store.engine.dialect.name != "sqlite"  # there one of two writers waits
    graceful = replace(PROFILES["github"], grace_seconds=60) if looked else None
    account = connected.consent()
    with pytest.raises(Killed):
        make(die_at="after_send", profile=graceful).refresh(account, after_generation=1)
    connected.clock.advance(timedelta(seconds=5))
    if looked:  # it is in doubt by now
        assert make(profile=graceful).settle_abandoned() == 1
        connected.clock.advance(timedelta(minutes=1))
    (intent,) = intents(connected)
    body = b'{"access_token": "late", "refresh_token": "later", "token_type": "bearer", "expires_in": 3600}'
    packed = pack(Answer(status=200, headers={}, body=body, elapsed=timedelta(seconds=1)))
    situation = connected.store.read(lambda c: read_situation(c, account))
    sealed = connected.vault.seal(packed, situation.answer_binding)

    def wake() -> None:
        assert connected.store.write(lambda c: store_answer(c, intent.id, sealed))

    overtaken = make(profile=graceful, store=OvertakenStore(connected.store, wake, within=within))
    if looked:
        assert overtaken.refresh(account, after_generation=1) == 2
    else:
        assert overtaken.settle_abandoned() == 1
        assert make().settle_abandoned() == 1
    assert (connected.generation(), connected.state()) == (2, AccountState.ACTIVE)
    assert connected.token() == "late"
    assert provider.presented == {"refresh-0": 1}


def put_out_of_date(world: World, key: AccountKey, scopes: tuple[str, ...] | None = None) -> bool:
    """What a signal does: the account's tokens say what does not hold any more, and what it may do may be another."""
    account = world.account(key)

    def write(connection: Connection) -> bool:
        lock_exclusive(connection, Scope(kind=ScopeKind.ACCOUNT, key=str(key)))
        if scopes is not None:
            rescope(connection, account, scopes)
        return drop_access(connection, account)

    return world.store.write(write)


@pytest.mark.parametrize("scopes", [None, ("read",)], ids=["renew", "rescope"])
@pytest.mark.parametrize("dies", [False, True], ids=["", "recovered"])
def test_a_signal_puts_a_refresh_on_the_wire_out_of_date_and_loses_no_refresh_token(
    connected: World, make: Make, provider: PretendProvider, scopes: tuple[str, ...] | None, dies: bool
) -> None:
    account = connected.consent()
    rotate = provider.answer

    def told_meanwhile(form: dict[str, str]) -> Any:
        assert put_out_of_date(connected, ANNA, scopes)
        return provider.rotate(form)

    provider.answer = told_meanwhile
    if dies:
        with pytest.raises(Killed):
            make(die_at="after_answer_stored").refresh(account, after_generation=1)
    assert make().refresh(account, after_generation=1) == 2
    grant = connected.grant()
    assert (grant.access_sealed, grant.scopes) == (None, scopes or ("read", "write"))
    assert connected.examine() == NeedsRefresh(account=account, generation=2)
    provider.answer = rotate
    assert make().refresh(account, after_generation=2) == 3
    assert (connected.token(), provider.presented) == ("access-2", {"refresh-0": 1, "refresh-1": 1})


@pytest.mark.parametrize("before", [False, True], ids=["told after", "told before"])
def test_a_late_answer_to_what_was_given_up_is_out_of_date_too(
    connected: World, make: Make, provider: PretendProvider, before: bool
) -> None:
    account = connected.consent()

    def told_and_paused_meanwhile(form: dict[str, str]) -> Any:
        if before:
            assert put_out_of_date(connected, ANNA)
        connected.clock.advance(timedelta(seconds=30))
        assert make().settle_abandoned() == 1
        if not before:
            assert put_out_of_date(connected, ANNA)
        return provider.rotate(form)

    provider.answer = told_and_paused_meanwhile
    assert make().refresh(account, after_generation=1) == 2
    assert (connected.state(), connected.grant().access_sealed) == (AccountState.ACTIVE, None)


def test_a_refresh_that_begins_after_a_signal_says_what_holds(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    assert put_out_of_date(connected, ANNA)
    assert make().refresh(account, after_generation=1) == 2
    assert connected.token() == "access-1"


def test_a_request_made_for_other_scopes_than_there_are_now_is_not_sent(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    told: list[bool] = []

    def tell_once(point: str) -> None:
        if point == "before_intent" and not told:
            told.append(put_out_of_date(connected, ANNA, ("read",)))

    assert make(reached=tell_once).refresh(account, after_generation=1) == 2
    assert told == [True]
    assert provider.presented == {"refresh-0": 1}
    assert (connected.token(), connected.grant().scopes) == ("access-1", ("read",))


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_minted_while_a_signal_comes_is_discarded_whatever_it_says(
    connected: World, make: Make, provider: PretendProvider, refused: bool
) -> None:
    account = connected.service(Credential.CLIENT_CREDENTIALS)
    mint = provider.answer

    def told_meanwhile(form: dict[str, str]) -> Any:
        assert put_out_of_date(connected, ROBOT, ("read",))
        return reply({"error": "invalid_grant"}, 400) if refused else mint(form)

    provider.answer = told_meanwhile
    assert make().refresh(account, after_generation=1) == 2
    grant = connected.grant(ROBOT)
    assert (connected.state(ROBOT), grant.access_sealed, grant.scopes) == (AccountState.ACTIVE, None, ("read",))
    provider.answer = mint
    assert make().refresh(account, after_generation=2) == 3
    assert connected.grant(ROBOT).access_sealed is not None


@pytest.mark.parametrize("credential", sorted(MINTED))
def test_every_minted_token_can_be_put_out_of_date(connected: World, credential: Credential) -> None:
    connected.service(credential, external_id="9001")
    assert put_out_of_date(connected, ROBOT)  # there is none yet, and the next one says what holds
    assert connected.generation(ROBOT) == 1
    connected.store.write(
        lambda connection: connection.execute(update(grants).values(access_sealed=b"minted")).rowcount
    )
    assert put_out_of_date(connected, ROBOT)
    assert (connected.grant(ROBOT).access_sealed, connected.generation(ROBOT)) == (None, 2)


def test_client_credentials_are_minted_and_minted_again(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.service(Credential.CLIENT_CREDENTIALS)
    needed = connected.examine(ROBOT)
    assert needed == NeedsRefresh(account=account, generation=1)
    assert make().refresh(account, after_generation=1) == 2
    assert isinstance(connected.examine(ROBOT), Leased)
    assert provider.forms[0]["scope"] == "read write"
    with pytest.raises(Killed):
        make(die_at="after_send").refresh(account, after_generation=2)
    connected.clock.advance(timedelta(minutes=1))
    make().settle_abandoned()
    assert connected.state(ROBOT) is AccountState.ACTIVE
    connected.clock.advance(timedelta(minutes=1))
    assert make().refresh(account, after_generation=2) == 3


def test_a_static_token_that_is_refused_needs_a_person_and_can_still_be_ended_at_the_provider(
    connected: World, make: Make
) -> None:
    account = connected.service(Credential.STATIC, token="xoxb-canary")
    assert isinstance(connected.examine(ROBOT), Leased)
    assert make().refresh(account, after_generation=1) == 1  # nobody refused it: it is served
    with pytest.raises(ReauthRequired):
        make().refresh(account, after_generation=1, refused=True)
    assert connected.state(ROBOT) is AccountState.NEEDS_RECONNECT
    assert (connected.audited("grant.expired"), connected.audited("grant.dead")) == (1, 0)
    with pytest.raises(ReauthRequired):
        make().refresh(account, after_generation=1)  # it lives by its date, and is served no more
    assert connected.token(ROBOT) == "xoxb-canary"
    number = connected.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ROBOT)))
    robot, now = connected.account(ROBOT), connected.clock.now
    assert connected.store.write(lambda c: take_grant(c, robot, before=number, revocation=None, now=now)) is not None


def test_a_service_token_that_was_replaced_meanwhile_is_not_taken_for_ended(connected: World, make: Make) -> None:
    account = connected.service(Credential.STATIC, token="xoxb-old")
    older = connected.store.read(lambda c: read_situation(c, account))
    connected.service(Credential.STATIC, token="xoxb-new")
    settlement = Settlement(
        account=older.account,
        intent=RefreshIntent(
            id="ref",
            account=account,
            generation=older.generation,
            consented=older.grant.consented,
            started_at=START,
            send_before=START,
            settled_by=START,
        ),
        now=connected.clock.now,
        ids=connected.id,
        restored=lambda connection, key: None,
    )
    assert connected.generation(ROBOT) == older.generation + 1
    assert connected.store.write(lambda c: settlement.expire(c, "it was refused")) == Superseded()
    assert connected.state(ROBOT) is AccountState.ACTIVE


def test_messages_name_no_secret(connected: World, make: Make, provider: PretendProvider) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "invalid_grant", "error_description": "refresh-0 client-canary"})
    with pytest.raises(ReauthRequired) as error:
        make().refresh(account, after_generation=1)
    assert "refresh-0" not in str(error.value)
    assert "canary" not in str(error.value)


def test_a_refusal_of_an_older_generation_is_no_death(connected: World, make: Make) -> None:
    account = connected.consent()
    assert make().refresh(account, after_generation=1) == 2

    def infer(generation: int) -> bool:
        audit_id, now = connected.id(), connected.clock.now
        return connected.store.write(
            lambda connection: infer_death(connection, account, generation=generation, audit_id=audit_id, now=now)
        )

    assert not infer(1)
    assert connected.state() is AccountState.ACTIVE
    assert infer(2)
    assert connected.state() is AccountState.NEEDS_RECONNECT
    assert connected.audited("grant.refused") == 1
    assert not infer(2)


def test_a_dead_grant_is_refused_by_its_row_however_often_it_is_asked_for(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "invalid_grant"}, 400)
    points: list[str] = []
    coordinator = make(reached=points.append)
    for _ in range(20):
        with pytest.raises(ReauthRequired):
            coordinator.refresh(account, after_generation=connected.generation())
    assert provider.presented.total() == 1
    assert points.count("after_lock") == 1


def test_threads_of_one_process_share_one_refresh_and_its_end(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    coordinator, start = make(), threading.Barrier(16)
    provider.answer = slowly(provider, 0.2)

    def refresh(_: int) -> int:
        start.wait()
        return coordinator.refresh(account, after_generation=1)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(refresh, range(16))) == [2] * 16
    assert provider.presented == {"refresh-0": 1}


def test_who_is_told_not_now_for_a_refused_token_does_not_speak_for_one_that_lives(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    """A flight for a refused token ends without one; a passenger whose token lives is served it all the same."""
    account = connected.consent(lifetime=timedelta(minutes=5))
    coordinator, asked, go = make(), threading.Event(), threading.Event()

    def busy(form: dict[str, str]) -> Any:
        asked.set()
        go.wait(10)
        return reply({}, 503, retry_after="30")

    provider.answer = busy
    with ThreadPoolExecutor(2) as pool:
        refused = pool.submit(coordinator.refresh, account, after_generation=1, refused=True)
        asked.wait(10)
        lives = pool.submit(coordinator.refresh, account, after_generation=1)
        go.set()
        with pytest.raises(Unavailable):
            refused.result()
        assert lives.result() == 1
    assert provider.presented.total() == 1


@pytest.mark.parametrize(
    ("status", "says", "seconds"),
    [
        (429, {"retry-after": "90"}, 90),
        (429, {}, 30),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(START.timestamp()) + 600)}, 600),
    ],
)
def test_a_pause_that_one_grant_was_told_of_holds_every_grant_of_the_connection(
    connected: World, make: Make, provider: PretendProvider, status: int, says: dict[str, str], seconds: int
) -> None:
    account = connected.consent(lifetime=timedelta(minutes=1))
    robot = connected.service(Credential.CLIENT_CREDENTIALS)
    coordinator = make()
    provider.answer = lambda form: (status, says, b"{}")
    assert coordinator.refresh(account, after_generation=1) == 1
    with pytest.raises(Unavailable) as error:
        coordinator.refresh(robot, after_generation=1)
    assert error.value.retry_after == timedelta(seconds=seconds)
    assert provider.presented.total() == 1


def test_an_endpoint_that_is_down_is_left_alone_after_five_failures(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    coordinator = make()
    provider.answer = lambda form: reply({}, 500)
    for _ in range(5):
        assert coordinator.refresh(account, after_generation=1) == 1
        connected.clock.advance(timedelta(seconds=6))  # past the wait of this one grant
    assert provider.presented.total() == 5
    connected.service(Credential.CLIENT_CREDENTIALS)
    with pytest.raises(Unavailable):
        coordinator.refresh(connected.account(ROBOT).id, after_generation=1)
    assert provider.presented.total() == 5
    connected.clock.advance(timedelta(seconds=10))
    provider.answer = provider.rotate
    assert coordinator.refresh(account, after_generation=1) == 2
