"""Cases 1 to 8, 26, 27 and 30: waiters, locks, crashes, and who was first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import pytest
import redis

from identity.accounts.grants import REFRESH
from identity.errors import GrantRevoked, ReauthRequired, Unavailable
from identity.model import AccountState, Leased, Scope, ScopeKind
from identity.refresh.late_answers import kept_answers
from identity.token_endpoint.budget import RefreshBudget
from pipeline.revocation import declaration
from pipeline.states import JobState
from tests.failure_cases.rig import ADA, Rig
from tests.killed import Killed
from tests.ledgers import MOSTLY_SQLITE, open_ledger
from tests.waiting import eventually

pytestmark = MOSTLY_SQLITE

PATIENCE = timedelta(milliseconds=50)
T = TypeVar("T")


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of *calls*, each begun in a thread of its own at the same moment."""
    barrier = threading.Barrier(len(calls))

    def one(call: Callable[[], T]) -> T:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def in_flight(rig: Rig, pool: ThreadPoolExecutor, account: str, locks: redis.Redis | None, **how: Any) -> Future[int]:
    """A refresh that the provider has received and not yet answered."""
    refreshed = pool.submit(rig.coordinator(locks, **how).refresh, account, after_generation=1)
    eventually(lambda: rig.provider.requests("/token")[1:], "the refresh arrives")  # the first was the consent's code
    return refreshed


def overtaken(rig: Rig, pool: ThreadPoolExecutor, account: str, locks: redis.Redis) -> int:
    """What a second worker gets, which took the lock while the first one's request is on the wire."""
    second = pool.submit(rig.coordinator(locks).refresh, account, after_generation=1)
    eventually(lambda: locks.keys(f"*refresh:{account}"), "the lock is taken again")
    rig.provider.release()
    return second.result()


def test_case_01_many_waiters_refresh_in_turn(rig: Rig, locks: redis.Redis) -> None:
    """Waiters look again after they get the lock and after their time-out. The token is presented once for all of them,
    and a waiter that gave up finds the new generation when it comes back.
    """
    account = rig.consent()
    with ThreadPoolExecutor(1) as pool:
        first = in_flight(rig, pool, account, locks)
        impatient = rig.coordinator(locks, wait=PATIENCE)
        with pytest.raises(Unavailable):
            impatient.refresh(account, after_generation=1)
        with ThreadPoolExecutor(9) as others:  # not 8: of so many listeners Valkey 9.1.2 says that they are millions
            waiters = [others.submit(rig.coordinator(locks).refresh, account, after_generation=1) for _ in range(9)]
            channel = f"aswhom:refreshed:{account}"
            eventually(lambda: locks.pubsub_numsub(channel)[0][1] == 9, "all wait")
            rig.provider.release()
            assert [waiter.result() for waiter in waiters] == [2] * 9
        assert first.result() == 2
    assert impatient.refresh(account, after_generation=1) == 2
    assert rig.provider.outcomes() == ["ok"]
    assert rig.works(account)


def test_case_02_a_lock_time_out_is_taken_for_bad_credentials(rig: Rig, locks: redis.Redis) -> None:
    """Contention has an error of its own, `Unavailable`: try again. The account, its grant and the audit do not change
    because of it.
    """
    account = rig.consent()
    with ThreadPoolExecutor(1) as pool:
        first = in_flight(rig, pool, account, locks)
        for _ in range(3):
            with pytest.raises(Unavailable, match="elsewhere"):
                rig.coordinator(locks, wait=PATIENCE).refresh(account, after_generation=1)
        assert (rig.account(account).state, rig.account(account).reason) == (AccountState.ACTIVE, None)
        assert rig.grant(account).generation == 1
        rig.provider.release()
        assert first.result() == 2
    assert rig.audited("grant.dead") == rig.audited("grant.unknown") == 0
    assert rig.works(account)


def test_case_03_a_database_lock_is_held_across_the_request(rig: Rig, locks: redis.Redis) -> None:
    """No transaction is open and no lock is held while the provider is asked: a revocation, which takes only the
    account's lock, commits meanwhile. The late answer is kept, sealed, only to be revoked.
    """
    account = rig.consent()
    scope = Scope(kind=ScopeKind.ACCOUNT, key=str(ADA))
    revoke = partial(
        declaration.declare,
        scope=scope,
        cause=declaration.Cause(source="test", by="eve", reason="gone"),
        id="rev-1",
        tenant="acme",
        now=datetime.now(UTC),
    )
    with ThreadPoolExecutor(1) as pool:
        first = in_flight(rig, pool, account, locks)
        rig.do(revoke)
        assert not first.done(), "the revocation waited for the provider"
        rig.provider.release()
        with pytest.raises(GrantRevoked):
            first.result()
    (kept,) = rig.database.read(lambda c: kept_answers(c, account))
    assert kept.answer_sealed is not None


def test_case_04_the_lock_is_shorter_than_the_refresh(rig: Rig, locks: redis.Redis) -> None:
    """The lock is set to outlive the whole refresh. If it lapses all the same, the intent's row prevents a second
    presentation of the token.
    """
    budget = RefreshBudget()
    assert budget.lock_ttl > budget.send + budget.http + budget.store
    account, brief = rig.consent(), timedelta(milliseconds=20)
    with ThreadPoolExecutor(2) as pool:
        first = in_flight(rig, pool, account, locks, lock_ttl=brief)
        eventually(lambda: not locks.keys(f"*refresh:{account}"), "the lock lapses")
        assert overtaken(rig, pool, account, locks) == first.result() == 2
    assert rig.provider.outcomes() == ["ok"]
    assert rig.works(account)


def test_case_05_a_slow_provider_at_the_top_of_the_hour(rig: Rig, locks: redis.Redis) -> None:
    """A second worker whose lock is free while the first one's refresh is slow does not kill the first one's token: it
    waits for that commit. Tokens that were issued in one moment are refreshed ahead at different moments.
    """
    account = rig.consent()
    with ThreadPoolExecutor(2) as pool:
        first = in_flight(rig, pool, account, locks)
        locks.delete(*locks.keys(f"*refresh:{account}"))
        assert overtaken(rig, pool, account, locks) == first.result() == 2
    assert rig.works(account)
    assert rig.coordinator(locks).refresh(account, after_generation=2) == 3
    assert (rig.provider.outcomes(), rig.provider.most_presented()) == (["ok", "ok"], 1)
    assert rig.works(account)
    herd = [rig.consent(key=rig.person(f"p-{number}"), person=f"p-{number}") for number in range(12)]
    for each in herd:
        rig.use(each)
    keepalive = rig.keepalive()
    assert keepalive.run() == 0
    moments = sorted(rig.keepalive_due(each) for each in herd)
    assert moments[-1] - moments[0] > timedelta(minutes=2)
    assert moments[-1] < min(rig.expires(each) for each in herd)
    presented = []
    for moment in moments:
        rig.clock.ahead += moment - rig.clock()
        keepalive.run()
        presented.append(len(rig.provider.outcomes()) - 2)
    assert presented[len(herd) // 2 - 1] < len(herd), "all at once"
    assert (presented[-1], rig.provider.most_presented()) == (len(herd), 1)
    assert all(rig.works(each) for each in herd)


def test_case_06_a_waiter_goes_on_without_a_token(rig: Rig, locks: redis.Redis) -> None:
    """A step that gets no token in time sends nothing. Its job goes back to the queue, spends no run, and posts as ada
    once the token is there.
    """
    account = rig.consent()
    rig.age(account)
    job = rig.job()
    with ThreadPoolExecutor(1) as pool:
        first = in_flight(rig, pool, account, locks)
        rig.worker(rig.coordinator(locks, wait=PATIENCE)).handle(job)
        waiting = rig.row(job)
        assert (waiting.state, waiting.runs_spent) == (JobState.QUEUED, 0)
        assert rig.provider.requests("/say") == []
        rig.provider.release()
        assert first.result() == 2
    rig.due_now()
    rig.worker(rig.coordinator(locks)).handle(job)
    assert rig.row(job).state == JobState.DONE
    (said,) = rig.provider.requests("/say")
    assert (said["status"], said["actor"]) == (200, "anna")


@pytest.mark.parametrize("with_redis", [True, False])
def test_case_07_parallel_items_burn_a_rotating_token(rig: Rig, locks: redis.Redis, with_redis: bool) -> None:
    """Callers that ask for the grant at the same time present its token once, also without Redis. A refusal is never
    stored as if it were a token.
    """
    account = rig.consent()
    everyone = [
        partial(rig.coordinator(locks if with_redis else None).refresh, account, after_generation=1) for _ in range(12)
    ]
    assert at_once(everyone) == [2] * 12
    assert rig.provider.outcomes() == ["ok"]
    stolen = rig.token(account, REFRESH)
    for _ in range(2):  # someone else burns the token
        rig.provider.token(grant_type="refresh_token", refresh_token=stolen)
    with pytest.raises(ReauthRequired, match="bad_refresh_token"):
        rig.coordinator(locks).refresh(account, after_generation=2)
    assert (rig.grant(account).access_sealed, rig.grant(account).refresh_sealed) == (None, None)


def test_case_08_a_rotated_token_has_nowhere_to_be_saved(rig: Rig, ledger_url: str) -> None:
    """Saving is part of the refresh: the raw answer is committed before it is read, and no token is used before it is
    committed. A process that knows only the ledger can go on from there, also after the first one died in between.
    """
    account = rig.consent()
    for generation, die_at in ((1, None), (2, "after_answer_stored"), (3, None)):
        fresh = open_ledger(ledger_url)  # another process's
        try:
            if die_at:
                with pytest.raises(Killed):
                    rig.coordinator(database=fresh, die_at=die_at).refresh(account, after_generation=generation)
            assert rig.coordinator(database=fresh).refresh(account, after_generation=generation) == generation + 1
        finally:
            fresh.close()
        assert rig.works(account)
    assert (rig.provider.outcomes(), rig.provider.most_presented()) == (["ok"] * 3, 1)


def test_case_26_a_loser_deletes_the_winners_token(rig: Rig, locks: redis.Redis) -> None:
    """A refusal ends only the generation that was presented. If the generation has moved meanwhile, it was a race: the
    winner's token stays, and the loser uses it.
    """
    account = rig.consent()
    with ThreadPoolExecutor(1) as pool:
        loser = in_flight(rig, pool, account, locks)
        assert rig.consent() == account
        winner = rig.token(account)
        rig.provider.release()
        assert loser.result() == 2
    assert rig.account(account).state is AccountState.ACTIVE
    assert rig.token(account) == winner
    assert rig.works(account)
    assert rig.audited("grant.dead") == 0


def test_case_27_a_dead_grant_is_asked_for_again_and_again(rig: Rig, locks: redis.Redis) -> None:
    """A dead grant is remembered in the account's state: a hundred calls, in any process, find it there and present
    nothing.
    """
    account = rig.consent()

    def ask() -> None:
        coordinator = rig.coordinator(locks)
        for _ in range(25):
            try:  # death is a generation of its own: whoever asks for one after 1 has it, and after that there is none
                after = coordinator.refresh(account, after_generation=1)
                coordinator.refresh(account, after_generation=after)
            except ReauthRequired:
                continue
            raise AssertionError("a dead grant was refreshed")

    at_once([ask] * 4)
    assert rig.provider.outcomes() == ["not_processed"]
    assert rig.account(account).state is AccountState.NEEDS_RECONNECT
    job = rig.job()
    rig.worker(rig.coordinator(locks)).handle(job)
    assert rig.row(job).state == JobState.WAITING
    assert len(rig.provider.outcomes()) == 1


def test_case_30_a_lease_that_is_taken_for_a_fence(rig: Rig, locks: redis.Redis) -> None:
    """A conditional write keeps the grant safe, not the lock: with every lock lost in the middle of a refresh, eight
    others still present nothing, and the family of tokens survives.
    """
    account = rig.consent()
    with ThreadPoolExecutor(1) as pool:
        first = in_flight(rig, pool, account, locks)
        locks.delete(*locks.keys(f"*refresh:{account}"))
        with ThreadPoolExecutor(8) as eight:
            others = [eight.submit(rig.coordinator(None).refresh, account, after_generation=1) for _ in range(8)]
            eventually(lambda: all(other.running() for other in others), "all ask")
            rig.provider.release()
            assert [other.result() for other in others] == [2] * 8
        assert first.result() == 2
    assert rig.provider.outcomes() == ["ok"]
    assert isinstance(rig.lease(), Leased)
    assert rig.coordinator(locks).refresh(account, after_generation=2) == 3
    assert rig.works(account)
