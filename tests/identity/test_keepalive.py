"""Keep-alive on a real ledger with the real coordinator: who is due, who never is, and what follows each outcome."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, insert, select, update

from identity.accounts.grants import note_use
from identity.accounts.scopes import remember_stop
from identity.accounts.states import move_account
from identity.connections.registry import pause_connection, resume_connection
from identity.errors import Unavailable
from identity.http.client import Client
from identity.model import AccountKey, AccountState, Credential, Leased, Scope, ScopeKind
from identity.providers import PROFILES
from identity.providers.profile import Profile
from identity.refresh.intents import RefreshIntent, open_intent, store_answer
from identity.refresh.keepalive import Keepalive, KeepaliveSettings, paced_by
from identity.refresh.keepalive_ledger import Due, claim, fair
from identity.refresh.keepalive_plan import IDLE, IN_USE, Tended
from identity.refresh.situation import read_situation
from identity.refresh.tables import refresh_intents
from identity.secret import Secret
from identity.sql.sequence import lock_exclusive
from identity.sql.store import CommitUnknown
from identity.tables import grants, principals, provider_connections
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.gate import Endpoint, Gate
from tests.identity.coordinators import MakeCoordinator
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.stores import FailingStore
from tests.identity.world import ANNA, ROBOT, START, World
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FORGETFUL = replace(PROFILES["github"], idle_limit=90 * DAY)

Make = Callable[..., Keepalive]


@pytest.fixture
def make(connected: World, http: Client) -> Make:
    def build(
        *,
        pacing: Callable[[Due, Profile], timedelta | None] = lambda due, profile: None,
        row: str = "github",
        stopping: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Keepalive:
        profiles = {"github": replace(FORGETFUL, name=row)}
        coordinator = MakeCoordinator(connected, http)(profiles=profiles, budget=RefreshBudget())
        return Keepalive(
            connected.store,
            lambda due: coordinator.refresh(due.account, after_generation=due.generation),
            profiles,
            pacing,
            clock=connected.clock,
            settings=KeepaliveSettings(batch=8, threads=4),
            stopping=stopping,
            monotonic=monotonic,
        )

    return build


def row(world: World, key: AccountKey = ANNA) -> Any:
    account = world.account(key).id
    return world.store.read(lambda c: c.execute(select(grants).where(grants.c.account_id == account)).one())


def use(world: World, key: AccountKey = ANNA) -> None:
    """As an opening does."""
    leased = world.examine(key)
    assert isinstance(leased, Leased)
    if leased.first_use:
        now = world.clock()
        world.store.write(lambda c: note_use(c, leased.account, generation=leased.generation, now=now))


def person(world: World, name: str) -> AccountKey:
    who = {"id": name, "tenant_id": "acme", "kind": "user", "name": name, "created_at": world.clock()}
    world.store.write(lambda c: c.execute(insert(principals), who))
    return AccountKey(tenant="acme", connection="forge", principal=name)


def test_a_token_in_use_is_refreshed_before_a_step_needs_it(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    connected.consent()
    use(connected)
    again = connected.examine()
    assert isinstance(again, Leased)
    assert not again.first_use  # one write a generation
    assert make().run() == 0
    connected.clock.now = row(connected).keepalive_due
    assert make().run() == 1
    assert provider.presented == {"refresh-0": 1}
    assert isinstance(connected.examine(), Leased)


def test_an_operator_may_say_when_a_server_of_ones_own_forgets(connected: World, make: Make) -> None:
    said = update(provider_connections).values(config={"idle_limit_days": "10"})
    connected.store.write(lambda c: c.execute(said).rowcount)
    connected.consent()
    make(row="oauth2").run()
    assert 6 * DAY < row(connected).keepalive_due - connected.clock.now < 9 * DAY


def test_a_value_that_was_stored_before_anybody_read_it_stops_nobodys_keep_alive(connected: World, make: Make) -> None:
    said = update(provider_connections).values(config={"idle_limit_days": "for ever", "rotates": "yes"})
    connected.store.write(lambda c: c.execute(said).rowcount)
    connected.consent()
    make(row="oauth2").run()
    assert row(connected).keepalive_due > connected.clock.now + 50 * DAY


def test_one_that_is_not_in_use_is_presented_only_inside_the_idle_limit(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    connected.consent()
    make().run()
    for _ in range(53):
        connected.clock.advance(DAY)
        assert make().run() == 0
    connected.clock.now = row(connected).keepalive_due
    assert make().run() == 1
    assert provider.presented == {"refresh-0": 1}
    assert row(connected).keepalive_due >= connected.clock() + 54 * DAY


def end_by_revocation(world: World) -> None:
    world.revoke(Scope(kind=ScopeKind.TENANT, key="acme"))


def end_by_own_revocation(world: World) -> None:
    world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)))


def end_by_state(world: World) -> None:
    account, now = world.account().id, world.clock()
    world.store.write(lambda c: move_account(c, account, to=AccountState.NEEDS_RECONNECT, reason="unknown", now=now))


@pytest.mark.parametrize("end", [end_by_revocation, end_by_own_revocation, end_by_state], ids=lambda end: end.__name__)
def test_what_has_ended_is_never_due(
    connected: World, make: Make, provider: PretendProvider, end: Callable[[World], None]
) -> None:
    connected.consent()
    use(connected)
    end(connected)
    make().run()
    assert row(connected).keepalive_due is None
    connected.clock.advance(80 * DAY)
    assert make().run() == 0
    assert provider.presented == {}


def test_a_stopped_grant_is_left_alone_until_it_is_opened_again(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    connected.consent()
    tenant = Scope(kind=ScopeKind.TENANT, key="acme")

    def write(*, stopped: bool) -> None:
        def under_lock(c: Connection) -> None:
            lock_exclusive(c, tenant)
            remember_stop(c, tenant, stopped=stopped)

        connected.store.write(under_lock)

    write(stopped=True)
    connected.clock.advance(80 * DAY)
    assert make().run() == 0
    assert row(connected).keepalive_error == "it is stopped"
    write(stopped=False)
    connected.clock.advance(2 * HOUR)
    assert make().run() == 1
    assert provider.presented == {"refresh-0": 1}


def test_a_dead_grant_is_tried_once(connected: World, make: Make, provider: PretendProvider) -> None:
    connected.consent()
    provider.answer = lambda form: reply({"error": "invalid_grant"}, status=400)
    connected.clock.advance(80 * DAY)
    for _ in range(3):
        assert make().run() == 0
        connected.clock.advance(DAY)
    assert connected.state() is AccountState.NEEDS_RECONNECT
    assert provider.presented == {"refresh-0": 1}
    assert row(connected).keepalive_due is None


def test_a_failure_is_put_off_further_each_time_and_is_visible(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    connected.consent()
    provider.answer = lambda form: reply({}, status=503)
    connected.clock.advance(80 * DAY)
    pauses = []
    for _ in range(3):
        assert make().run() == 0
        pauses.append(row(connected).keepalive_due - connected.clock())
        connected.clock.now = row(connected).keepalive_due
    assert pauses == sorted(pauses)
    assert row(connected).keepalive_failures == 3
    assert row(connected).keepalive_error.endswith("no token now (status 503)")
    provider.answer = provider.rotate
    assert make().run() == 1
    assert (row(connected).keepalive_failures, row(connected).keepalive_error) == (0, None)


def test_a_paused_connection_is_not_asked(connected: World, make: Make, provider: PretendProvider) -> None:
    connected.consent()
    connected.store.write(lambda c: pause_connection(c, "forge", reason="refused"))
    connected.clock.advance(80 * DAY)
    assert make().run() == 0
    assert provider.presented == {}
    connected.store.write(lambda c: resume_connection(c, "forge"))
    connected.clock.now = row(connected).keepalive_due
    assert make().run() == 1


def test_a_reconnected_account_is_planned_again(connected: World, make: Make) -> None:
    connected.consent()
    end_by_own_revocation(connected)
    connected.consent()
    make().run()
    assert row(connected).keepalive_due > connected.clock() + 50 * DAY


def test_a_service_token_that_nobody_asked_for_is_not_minted_ahead(connected: World, make: Make) -> None:
    connected.service(Credential.CLIENT_CREDENTIALS)
    assert make().run() == 0  # it has no token yet, and nobody asked for one
    assert row(connected, ROBOT).keepalive_due is None


def test_a_full_endpoint_is_not_asked_and_the_others_line_up(connected: World, make: Make) -> None:
    keys = [ANNA, *(person(connected, f"user-{number}") for number in range(5))]
    for key in keys:
        connected.consent(key)
    connected.clock.advance(80 * DAY)
    room = iter([None, None])
    assert make(pacing=lambda due, profile: next(room, timedelta(seconds=30))).run() == 2
    waiting = sorted(due for key in keys if (due := row(connected, key).keepalive_due) < connected.clock() + HOUR)
    assert len(waiting) == 4
    assert waiting[0] == connected.clock() + timedelta(seconds=30)
    assert {later - earlier for earlier, later in itertools.pairwise(waiting)} == {FORGETFUL.token_pace.interval}


def test_an_installation_waits_for_the_endpoint_that_its_tokens_come_from(connected: World) -> None:
    connected.service(Credential.INSTALLATION, external_id="9001")
    connected.consent()
    now, gate, minute = connected.clock(), Gate(None), timedelta(minutes=1)
    due = connected.store.write(lambda c: claim(c, now=now, until=now + HOUR, limit=2))
    gate.pause(Endpoint.of(connected.owner, Credential.INSTALLATION), minute)
    waits = {one.tended.credential: paced_by(gate)(one, FORGETFUL) is not None for one in due}
    assert waits == {Credential.INSTALLATION: True, Credential.AUTHORIZATION_CODE: False}


def test_two_hosts_share_what_is_due(connected: World, make: Make, provider: PretendProvider) -> None:
    for number in range(12):
        connected.consent(person(connected, f"user-{number}"))
    connected.clock.advance(80 * DAY)
    hosts, start = [make(), make()], threading.Barrier(2)

    def run(host: Keepalive) -> int:
        start.wait()
        return host.run()

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(run, hosts)) == 12
    assert sum(provider.presented.values()) == 12


def test_where_a_provider_hangs_a_batch_ends_by_time_and_what_had_not_begun_goes_back(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    keys = [person(connected, f"user-{number}") for number in range(8)]  # one batch
    for key in keys:
        connected.consent(key)
    connected.clock.advance(80 * DAY)
    passed, wired = [0.0], threading.Barrier(4, timeout=60)

    def hang(form: dict[str, str]) -> Reply:
        wired.wait()
        passed[0] = 61.0
        return reply({}, status=503)

    provider.answer = hang
    assert make(monotonic=lambda: passed[0]).run() == 0
    assert provider.presented.total() == 4
    unbegun = [row(connected, key) for key in keys if row(connected, key).keepalive_failures == 0]
    assert len(unbegun) == 4
    assert max(one.keepalive_due for one in unbegun) < connected.clock() + timedelta(minutes=1)


def test_a_pass_that_is_told_to_stop_ends_what_is_on_the_wire_and_begins_nothing(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    keys = [person(connected, f"user-{number}") for number in range(12)]
    for key in keys:
        connected.consent(key)
    connected.clock.advance(80 * DAY)
    told, wired = threading.Event(), threading.Barrier(4, timeout=60)

    def tell_all_four_at_once(form: dict[str, str]) -> Reply:
        wired.wait()
        told.set()
        return provider.rotate(form)

    provider.answer = tell_all_four_at_once
    assert make(stopping=told.is_set).run() == 4
    assert provider.presented.total() == 4
    begun = connected.store.read(lambda c: c.execute(select(refresh_intents.c.state)).scalars().all())
    assert begun == ["committed"] * 4
    # The others are left to the next process: those that were claimed as well.
    left = [row(connected, key).keepalive_due for key in keys if connected.generation(key) == 1]
    assert max(left) < connected.clock() + timedelta(minutes=1)
    assert len(left) == 8
    provider.answer = provider.rotate
    connected.clock.advance(timedelta(minutes=1))
    assert make().run() == 8


def test_a_grant_that_fails_in_a_way_nobody_foresaw_is_put_off_and_holds_up_no_other(
    connected: World, make: Make
) -> None:
    """Such as a stored answer that cannot be read."""
    account, other = connected.consent(), person(connected, "other")
    connected.consent(other)
    situation, now = connected.store.read(lambda c: read_situation(c, account)), connected.clock()
    unread = connected.vault.seal(Secret("no answer"), situation.answer_binding)
    intent = RefreshIntent(
        id="ref", account=account, generation=1, consented=1, started_at=now, send_before=now, settled_by=now
    )
    connected.store.write(lambda c: open_intent(c, intent, former=None))
    connected.store.write(lambda c: store_answer(c, intent.id, unread))
    connected.clock.advance(80 * DAY)
    with pytest.raises(ExceptionGroup, match="kept alive") as told:
        make().run()
    assert [type(one).__name__ for one in told.value.exceptions] == ["JSONDecodeError"]
    assert told.value.exceptions[0].__notes__ == [f"account {account}"]
    assert (connected.generation(), connected.generation(other)) == (1, 2)
    assert (row(connected).keepalive_failures, row(connected).keepalive_error) == (1, "JSONDecodeError")
    assert row(connected, other).keepalive_error is None
    assert make().run() == 0  # its turn comes later, and later each time
    connected.clock.now = row(connected).keepalive_due
    with pytest.raises(ExceptionGroup):
        make().run()
    assert row(connected).keepalive_failures == 2


def test_a_claim_keeps_others_off_and_lapses(connected: World) -> None:
    connected.consent()
    until = connected.clock() + HOUR

    def take(now: datetime) -> int:
        return len(connected.store.write(lambda c: claim(c, now=now, until=until, limit=10)))

    assert [take(connected.clock()), take(connected.clock()), take(until)] == [1, 0, 1]


def test_what_is_in_use_is_claimed_before_what_has_been_due_for_longer(connected: World) -> None:
    """A batch is not filled with what nobody uses while a step is about to wait."""
    used, idle, now = connected.consent(), connected.consent(person(connected, "other")), connected.clock()

    def is_due(connection: Connection) -> None:
        for account, rank, since in ((used, IN_USE, HOUR), (idle, IDLE, 30 * DAY)):
            due = update(grants).where(grants.c.account_id == account)
            connection.execute(due.values(keepalive_rank=rank, keepalive_due=now - since))

    connected.store.write(is_due)

    def take(limit: int) -> list[str]:
        return [
            due.account for due in connected.store.write(lambda c: claim(c, now=now, until=now + HOUR, limit=limit))
        ]

    assert [take(1), take(2)] == [[used], [idle]]


def test_connections_and_their_tenants_take_turns() -> None:
    def due(connection: str, tenant: str, name: str) -> Due:
        return Due(
            key=AccountKey(tenant=tenant, connection=connection, principal=name),
            provider="github",
            endpoint=Endpoint(connection=connection, url="https://forge.example/token"),
            config={},
            generation=1,
            tended=Tended(
                account=name,
                credential=Credential.AUTHORIZATION_CODE,
                renewable=True,
                obtained_at=START,
                expires_at=None,
                used_at=None,
            ),
            failures=0,
            due=START,
            claimed_until=START,
            not_now=None,
        )

    crowd = [due("forge", "big", f"b{number}") for number in range(3)]
    line = fair([*crowd, due("forge", "small", "s0"), due("mill", "big", "m0")])
    assert [one.key.principal for one in line] == ["b0", "m0", "s0", "b1", "b2"]


@pytest.mark.parametrize("fault", ["no turn", "commit lost"])
def test_what_nobody_foresaw_is_told_of_though_the_ledger_goes_away_after_it(connected: World, fault: str) -> None:
    connected.consent()
    connected.clock.advance(80 * DAY)

    def refresh(due: Due) -> int:
        raise ValueError("nobody foresaw this")

    away = FailingStore(connected.store, {2: fault})  # the first is the claim
    keepalive = Keepalive(away, refresh, {"github": FORGETFUL}, lambda due, profile: None, clock=connected.clock)
    with pytest.raises(ExceptionGroup, match="kept alive") as told:
        keepalive.run()
    assert [type(one) for one in told.value.exceptions] == [
        ValueError,
        Unavailable if fault == "no turn" else CommitUnknown,
    ]


def test_what_cannot_be_measured_shows_no_number_until_it_can(connected: World, make: Make) -> None:
    def shown() -> tuple[float | None, ...]:
        return tuple(REGISTRY.get_sample_value(f"aswhom_keepalive_{name}") for name in ("due", "lag_seconds"))

    away = FailingStore(connected.store, {1: "no turn"})
    keepalive = Keepalive(away, lambda due: 1, {}, lambda due, profile: None, clock=connected.clock)
    make().run()
    assert shown() == (0, 0)
    with pytest.raises(Unavailable):
        keepalive.run()
    assert all(math.isnan(one or 0) for one in shown())
    keepalive.run()
    assert shown() == (0, 0)
