"""A signal that means very many accounts reaches each of them once, a few a transaction, whoever goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, select, update

from identity.model import AccountKey
from identity.tables import accounts
from pipeline.authoring.registry import Registry
from pipeline.db.database import DatabaseSettings
from pipeline.deliveries.intake import Intake
from pipeline.duties import gauges
from pipeline.model import Acceptance, DeliveryOutcome, LeftOut, SignedDelivery, Unfollowed
from pipeline.revocation.signal_chunks import ACCOUNTS
from pipeline.revocation.tables import revocations, signal_chunks
from pipeline.revoker.signal_following import SignalFollower
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.signal import Asks, Signal, Workspaces
from pipeline.tables import deliveries
from pipeline.upkeep import duties_of
from tests.ledger.acts import listening, revoke
from tests.ledger.crowd import crowd, uninstalled
from tests.ledger.house import House, account_scope, begin_connecting
from tests.ledgers import MOSTLY_SQLITE, TURN, turn_taken
from tests.webhooks.parts import MemoryRing

pytestmark = MOSTLY_SQLITE

NOW = datetime.now(UTC)


def _intake(house: House, monotonic: Callable[[], float] = lambda: 0.0) -> Intake:
    return Intake(house.database, house.vault, house.ids, clock=lambda: datetime.now(UTC), monotonic=monotonic)


def _accept(intake: Intake, delivery: SignedDelivery) -> Acceptance:
    return intake.accept(delivery, (), outcome=DeliveryOutcome.IGNORED, reason="")


def _follower(house: House, ring: MemoryRing | None = None, **more: Any) -> SignalFollower:
    return SignalFollower(house.database, ring or MemoryRing(), clock=lambda: datetime.now(UTC), **more)


def _active(house: House) -> int:
    active = select(func.count()).select_from(accounts).where(accounts.c.state == "active")
    return int(house.database.read(lambda c: c.execute(active).scalar_one()))


def _revoked_keys(house: House) -> list[str]:
    return list(house.database.read(lambda c: c.execute(select(revocations.c.key)).scalars()))


def _reason(house: House) -> str:
    return str(house.database.read(lambda c: c.execute(select(deliveries.c.reason)).scalar_one()))


def _waiting(house: House) -> int:
    return int(house.database.read(lambda c: c.execute(select(func.count()).select_from(signal_chunks)).scalar_one()))


def _cut_short(house: House, delivery: SignedDelivery) -> Unfollowed:
    """The request reaches two chunks, and its time is over."""
    with pytest.raises(Unfollowed) as short:
        _accept(_intake(house, partial(next, count(step=10))), delivery)
    return short.value


def test_everyone_is_reached_before_the_answer_and_no_transaction_reaches_more_than_a_few(house: House) -> None:
    number = 2 * ACCOUNTS + 3
    crowd(house, number - 2)
    delivery = uninstalled(house)
    accepted = _accept(_intake(house), delivery)
    assert accepted.outcome == "signal"
    assert accepted.reason == _reason(house) == f"{number} account(s) revoked; an address is no person"
    assert (_active(house), _waiting(house)) == (0, 0)
    keys = _revoked_keys(house)
    assert len(set(keys)) == len(keys) == number == len(set(accepted.revocations))
    again = _accept(_intake(house), delivery)
    assert (again.outcome, again.revocations, len(_revoked_keys(house))) == ("duplicate", (), number)


def test_a_signal_that_also_names_a_place_listed_for_no_tenant_says_so_when_all_are_reached(house: House) -> None:
    number = ACCOUNTS + 3
    crowd(house, number - 2)
    whom = tuple(Workspaces(ids=frozenset({id})) for id in ("installation-acme", "T9"))
    signal = Signal(source="slack.app_uninstalled", asks=Asks.REVOKE, whom=whom, reason="uninstalled")
    accepted = _accept(_intake(house), house.delivery("gone", signal=signal))
    assert accepted.nobodys
    assert _reason(house) == accepted.reason
    assert accepted.reason.startswith(f"{number} account(s) revoked; no tenant has T9: ")
    assert "`aswhom installations add gh T9 TENANT`" in accepted.reason
    left_out = select(deliveries.c.left_out)
    assert house.database.read(lambda c: c.execute(left_out).scalars().all()) == [LeftOut.UNREACHED]


def test_a_signal_waits_for_nobodys_turn(house: House) -> None:
    crowd(house, 2 * ACCOUNTS)
    with turn_taken(house.database):
        _accept(_intake(house), uninstalled(house))
    assert _active(house) == 0


def test_a_request_that_is_cut_short_is_not_answered_and_the_same_delivery_goes_on(house: House) -> None:
    number = 3 * ACCOUNTS + 2
    crowd(house, number - 2)
    delivery = uninstalled(house)
    short = _cut_short(house, delivery)
    assert _active(house) == number - 2 * ACCOUNTS == number - len(set(short.revocations))
    assert f"{number - ACCOUNTS} account(s) to go" in _reason(house)
    again = _accept(_intake(house), delivery)
    assert (again.outcome, len(again.revocations)) == ("duplicate", number - 2 * ACCOUNTS)
    assert (_active(house), _waiting(house), len(_revoked_keys(house))) == (0, 0, number)
    assert _reason(house) == f"{number} account(s) revoked; an address is no person"


def test_housekeeping_goes_on_where_nobody_sends_it_again(house: House) -> None:
    number = 3 * ACCOUNTS + 2
    crowd(house, number - 2)
    _cut_short(house, uninstalled(house))
    ring = MemoryRing()
    for _ in range(2):
        _follower(house, ring).run()
    assert (_active(house), _waiting(house), len(_revoked_keys(house))) == (0, 0, number)
    assert len(ring.rung) == len(set(ring.rung)) == number - 2 * ACCOUNTS


@pytest.mark.parametrize("by", ["housekeeping", "the same delivery"])
def test_a_signal_that_its_request_could_not_finish_is_watched_and_timed_to_its_last_account(
    house: House, by: str
) -> None:
    def measured(name: str) -> float:
        gauges.measure(house.database)
        return REGISTRY.get_sample_value(f"aswhom_{name}") or 0

    crowd(house, 3 * ACCOUNTS)
    delivery = uninstalled(house)
    assert measured("signal_unreached_seconds") == 0
    before = [measured(f"revocation_effective_seconds_{part}") for part in ("count", "sum")]
    _cut_short(house, delivery)
    ago = update(deliveries).values(received_at=datetime.now(UTC) - timedelta(hours=1))
    house.database.write(lambda c: c.execute(ago).rowcount)
    assert 3600 <= measured("signal_unreached_seconds") < 3660
    for _ in range(2):
        if by == "housekeeping":
            _follower(house).run()
        else:
            _accept(_intake(house), delivery)
    assert measured("signal_unreached_seconds") == 0
    times, took = [measured(f"revocation_effective_seconds_{part}") for part in ("count", "sum")]
    assert times == before[0] + 1
    assert 3600 <= took - before[1] < 3660


@pytest.mark.parametrize("before", [None, Asks.REVOKE], ids=["a suspension", "all are revoked already"])
@pytest.mark.parametrize("by", ["housekeeping", "the same delivery"])
def test_a_signal_that_revokes_nothing_is_not_timed(house: House, before: Asks | None, by: str) -> None:
    """Its seconds would page somebody because of a slow revocation."""
    crowd(house, 3 * ACCOUNTS)
    delivery = uninstalled(house)
    assert delivery.signal is not None
    if before is None:
        delivery = replace(delivery, signal=replace(delivery.signal, asks=Asks.SUSPEND))
    else:
        _accept(_intake(house), uninstalled(house, "first"))
    timed = partial(REGISTRY.get_sample_value, "aswhom_revocation_effective_seconds_count")
    times = timed()
    assert not _cut_short(house, delivery).revocations
    for _ in range(2):
        if by == "housekeeping":
            _follower(house).run()
        else:
            _accept(_intake(house), delivery)
    assert (_waiting(house), timed()) == (0, times)


def test_whom_housekeeping_has_yet_to_reach_comes_before_whatever_waits_to_be_written(
    house: House, ledger_url: str
) -> None:
    """Until each has had its turn its steps open: nothing that only tidies up may take it from them."""
    crowd(house, 3 * ACCOUNTS)
    _cut_short(house, uninstalled(house))
    settings = RuntimeSettings(
        database=DatabaseSettings(url=ledger_url, turn_timeout=TURN),
        keys=Keys(vault={1: b"k" * 32}, signing=b"s" * 32),
        base_url="http://127.0.0.1:1",
    )
    with closing(Runtime(settings, Registry([house.workflow]), MemoryRing())) as runtime:
        (duty,) = [duty for duty in duties_of(runtime) if duty.name == "signals"]
        with turn_taken(house.database):
            duty.run()
    assert (_active(house), _waiting(house)) == (0, 0)


def test_a_signal_that_cannot_go_on_holds_up_no_other(house: House) -> None:
    crowd(house, 3 * ACCOUNTS)
    broken, sound = (_cut_short(house, uninstalled(house, key)).delivery for key in ("broken", "sound"))
    of_broken = signal_chunks.c.delivery_id == broken
    house.database.write(lambda c: c.execute(update(signal_chunks).where(of_broken).values(signal={})))
    follower, told = _follower(house, monotonic=partial(next, count(step=4))), list[Exception]()
    for _ in range(4):  # each of these ticks has time for one of them
        try:
            follower.run()
        except ExceptionGroup as group:
            told += group.exceptions
    assert [note for one in told for note in one.__notes__] == [f"delivery {broken}"], "it had its turn, and waits"
    assert _active(house) == 0
    left = house.database.read(lambda c: set(c.execute(select(signal_chunks.c.delivery_id)).scalars()))
    assert left == {broken}, f"{sound} is followed to its end"


def test_a_request_that_meets_an_error_still_says_whom_it_reached(house: House) -> None:
    crowd(house, 3 * ACCOUNTS)

    def breaking() -> float:
        house.database.write(lambda c: c.execute(update(signal_chunks).values(signal={})).rowcount)
        return 0.0

    with pytest.raises(Unfollowed) as short:
        _accept(_intake(house, breaking), uninstalled(house))
    assert len(set(short.value.revocations)) == 2 * ACCOUNTS


def test_who_connects_anew_meanwhile_is_not_meant_any_more(house: House) -> None:
    """The sender names no time: what counts is that the link was made after the signal was accepted."""
    crowd(house, 3 * ACCOUNTS)
    _cut_short(house, uninstalled(house))
    house.connect("acme", "p00060")
    _follower(house).run()
    assert (_active(house), _waiting(house)) == (1, 0)
    assert "acme/gh/p00060" not in _revoked_keys(house)
    assert "1 account(s) connected again since" in _reason(house)


def test_a_link_opened_after_the_signal_was_accepted_still_connects(house: House) -> None:
    """Somebody whose grant was withdrawn before: her chunk comes late, and she began anew meanwhile."""
    crowd(house, 3 * ACCOUNTS)
    revoke(house, account_scope("p00060"))
    _cut_short(house, uninstalled(house))
    begin_connecting(house, AccountKey(tenant="acme", connection="gh", principal="p00060"))
    _follower(house).run()
    assert _revoked_keys(house).count("acme/gh/p00060") == 1, "none but the first, which precedes the link"
    assert "1 account(s) revoked already" in _reason(house)


def test_people_whom_the_provider_named_to_nobody_are_not_taken_for_one_person(house: House) -> None:
    """Otherwise the revocation of one would put the end of all others in doubt, and very many would be looked up."""
    crowd(house, ACCOUNTS)
    revoke(house, account_scope("p00000"))
    _accept(_intake(house), uninstalled(house))
    in_doubt = select(revocations.c.key).where(revocations.c.doubt.is_not(None))
    assert not house.database.read(lambda c: c.execute(in_doubt).scalars().all())


@pytest.mark.slow
def test_thousands_of_accounts_end_and_no_transaction_locks_more_than_a_few_of_them(house: House) -> None:
    number = 2_000
    crowd(house, number - 2)
    most: list[int] = []
    locks: set[int] = set()

    def count_locks(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "pg_advisory_xact_lock(" in statement:
            locks.add(parameters["key"])

    def committed(connection: Any) -> None:
        most.append(len(locks))
        locks.clear()

    def undone(connection: Any) -> None:
        locks.clear()

    began, engine = datetime.now(UTC), house.database.engine
    with (
        listening(engine, "before_cursor_execute", count_locks),
        listening(engine, "commit", committed),
        listening(engine, "rollback", undone),
    ):
        accepted = _accept(_intake(house), uninstalled(house, happened_at=began + timedelta(seconds=1)))
    assert len(set(accepted.revocations)) == number
    assert (_active(house), _waiting(house)) == (0, 0)
    least = 1 if house.database.engine.dialect.name == "postgresql" else 0  # SQLite has one writer, and no locks
    assert least <= max(most, default=0) <= ACCOUNTS
