"""Bells that the broker did not take are outstanding no longer, so work goes on as soon as it is back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from math import isnan
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import BigInteger, select, type_coerce, update

from identity.sql.columns import Instant, database_in, in_microseconds, microseconds
from pipeline.broker.celery import QUEUES
from pipeline.broker.doorbells import Doorbells, measure_lying
from pipeline.broker.ring import CeleryRing
from pipeline.duties import reconcile
from pipeline.jobs import bells, claims
from pipeline.model import Bell
from pipeline.tables import jobs as jobs_table
from tests.celery.rig import publisher
from tests.ledger.house import HOLD, House
from tests.ledger.plans import statements_of
from tests.ledgers import ONLY_SQLITE
from tests.servers.valkey import Valkey
from tests.waiting import eventually
from tests.webhooks.parts import MemoryRing


@pytest.fixture
def doorbells(house: House, own_valkey: Valkey) -> Iterator[Doorbells]:
    with closing(CeleryRing(publisher(own_valkey.url))) as ring:
        yield Doorbells(house.database, ring)


def queued(valkey: Valkey) -> int:
    with valkey.client() as client:
        return int(client.llen("aswhom:hybrid"))


def test_a_bell_that_rang_stays_outstanding(house: House, doorbells: Doorbells, own_valkey: Valkey) -> None:
    accepted = house.accept(house.delivery("d1"))
    assert doorbells.jobs(accepted.bells)
    assert house.row(accepted.jobs[0]).rung_until == accepted.bells[0].rung_until is not None
    assert queued(own_valkey) == 1


def test_work_accepted_while_the_broker_was_away_is_rung_for_as_soon_as_it_is_back(
    house: House, doorbells: Doorbells, own_valkey: Valkey
) -> None:
    own_valkey.kill()
    accepted = house.accept(house.delivery("d1"))
    assert not doorbells.jobs(accepted.bells)
    assert house.row(accepted.jobs[0]).rung_until is None
    dispatch = partial(reconcile.dispatch, house.database, doorbells, window=64)
    own_valkey.start()

    def heard() -> bool:
        dispatch()
        return queued(own_valkey) > 0

    # The longest pause between two trials is 5 s; a bell that was left outstanding is replaced after 30.
    eventually(heard, what="the dispatcher rang")
    assert house.row(accepted.jobs[0]).rung_until is not None


def test_while_the_broker_is_away_the_dispatcher_writes_nothing(house: House, own_valkey: Valkey) -> None:
    """Four times a second, for each queue with work, in the hour when the ledger is what takes it in."""
    job = house.accept(house.delivery("d1")).jobs[0]
    house.database.write(lambda c: c.execute(update(jobs_table).values(rung_until=None)).rowcount)
    own_valkey.kill()
    now = [100.0]

    with closing(CeleryRing(publisher(own_valkey.url), monotonic=lambda: now[0])) as ring:
        dispatch = partial(reconcile.dispatch, house.database, Doorbells(house.database, ring), window=64)

        def ten_seconds() -> None:
            for _ in range(40):
                dispatch()
                now[0] += 0.25

        said = statements_of(ten_seconds)
        assert said
        assert not [statement for statement, _ in said if "UPDATE jobs" in statement]
        own_valkey.start()
        now[0] += 10
        dispatch()
    assert queued(own_valkey) == 1
    assert house.row(job).rung_until is not None


def test_a_bell_that_was_rung_anew_meanwhile_is_not_taken_back(house: House) -> None:
    accepted = house.accept(house.delivery("d1"))
    (job,), (bell,) = accepted.jobs, accepted.bells
    assert bell.rung_until is not None
    anew = bell.rung_until + timedelta(seconds=1)
    house.database.write(
        lambda c: c.execute(update(jobs_table).where(jobs_table.c.id == job).values(rung_until=anew)).rowcount
    )
    house.database.write(partial(bells.unring, bells=accepted.bells))
    assert house.row(job).rung_until == anew


WINDOW, SLOTS = 8, 2
LONG = timedelta(seconds=10)  # each job of the backlog: fewer begin than lapse


class SlowWorker:
    """Two slots and a queue; each round takes ten seconds, by which the ledger's bells and the queue's grow older."""

    def __init__(self, house: House) -> None:
        self.queue: deque[tuple[str, int]] = deque()
        self.house, self.ring = house, MemoryRing(lying=lambda: len(self.queue))
        self.claimed: list[claims.ClaimedJob] = []

    def accept(self, number: int, **fields: Any) -> None:
        for _ in range(number):
            key = self.house.ids("del")
            self._heard(self.house.accept(self.house.delivery(key, text=key, **fields)).bells)

    def round(self) -> None:
        write = self.house.database.write
        reconcile.dispatch(self.house.database, self.ring, window=WINDOW)
        self._heard(self.ring.bells)
        begun: list[claims.ClaimedJob] = []
        while self.queue and len(begun) < SLOTS:
            job, lapses = self.queue.popleft()
            claimed = write(partial(claims.claim, job=job, claim_for=HOLD, lapses=lapses))
            begun += [claimed] if claimed is not None else []
        for one in begun:
            write(partial(claims.finish, job=one))
        self.claimed += begun
        older = type_coerce(type_coerce(jobs_table.c.rung_until, BigInteger) - microseconds(LONG), Instant)
        write(lambda c: c.execute(update(jobs_table).values(rung_until=older)).rowcount)
        self.queue = deque((job, lapses - microseconds(LONG)) for job, lapses in self.queue)

    def _heard(self, rung: Iterable[Bell]) -> None:
        self.queue.extend((bell.job, in_microseconds(bell.rung_until)) for bell in rung if bell.rung_until)
        self.ring.bells.clear()


def test_a_backlog_of_long_jobs_has_no_more_bells_than_its_share(house: House) -> None:
    """A bell that waits in the broker for longer than it is outstanding is rung again, and is no second permit."""
    worker = SlowWorker(house)
    worker.accept(100)
    for _ in range(25):
        worker.round()
    before = len(worker.claimed)
    assert before == 25 * SLOTS
    worker.accept(1, tenant="globex")
    for _ in range(2 * WINDOW // SLOTS):
        worker.round()
    assert "globex" in [one.tenant for one in worker.claimed[before:]]


def test_a_job_that_was_woken_has_its_turn_while_another_tenants_bells_fill_the_queue(house: House) -> None:
    """Whoever woke it rang for nothing, and a window of bells that are outstanding no longer lies in the queue."""
    worker = SlowWorker(house)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    asleep = house.accept(house.delivery("asleep", tenant="globex", text="asleep"), due=tomorrow).jobs[0]
    worker.accept(3 * WINDOW)
    others = select(jobs_table.c.id).where(jobs_table.c.id != asleep)
    long_ago = in_microseconds(datetime.now(UTC) - timedelta(minutes=5))
    waiting = house.database.read(lambda c: c.execute(others).scalars().all())
    worker.queue = deque((job, long_ago) for job in waiting)
    house.database.write(lambda c: c.execute(update(jobs_table).values(rung_until=None)).rowcount)
    wakes = update(jobs_table).where(jobs_table.c.id == asleep).values(due_at=jobs_table.c.created_at)
    house.database.write(lambda c: c.execute(wakes).rowcount)
    worker.round()
    ahead = [job for job, _ in worker.queue].index(asleep)
    assert ahead <= len(waiting), "its bell is behind those that lay there, and behind no others"
    for _ in range(ahead // SLOTS + 1):
        worker.round()
    assert asleep in [one.id for one in worker.claimed]


def test_a_bell_that_was_lost_is_replaced_while_others_fill_the_queue(house: House) -> None:
    lost, *_ = (house.accept(house.delivery(key, tenant="globex", text=key)).jobs[0] for key in ("d1", "d2"))
    for number in range(3 * WINDOW):
        house.accept(house.delivery(f"acme-{number}", text=f"acme-{number}"))
    lapse = update(jobs_table).where(jobs_table.c.rung_until.is_not(None)).values(rung_until=jobs_table.c.created_at)
    house.database.write(lambda c: c.execute(lapse).rowcount)
    ring = MemoryRing(lying=lambda: WINDOW)  # of acme's
    reconcile.dispatch(house.database, ring, window=WINDOW)
    assert [bell.job for bell in ring.bells if bell.tenant == "globex"] == [lost]
    assert len(ring.bells) == 2, "and one of acme's, which has none outstanding either"


def test_a_bell_that_is_rung_for_want_of_an_answer_says_so_and_others_do_not(house: House) -> None:
    lost, other = (house.accept(house.delivery(key, text=key)).jobs[0] for key in ("d1", "d2"))
    lapse = update(jobs_table).where(jobs_table.c.id == lost).values(rung_until=jobs_table.c.created_at)
    silence = update(jobs_table).where(jobs_table.c.id == other).values(rung_until=None)
    for said in (lapse, silence):
        house.database.write(lambda c, said=said: c.execute(said).rowcount)  # type: ignore[misc]
    ring = MemoryRing()
    reconcile.dispatch(house.database, ring, window=WINDOW)
    assert {bell.job: bell.again for bell in ring.bells} == {lost: True, other: False}


@ONLY_SQLITE
def test_a_job_tells_how_long_it_was_due_when_it_is_claimed(house: House) -> None:
    job = house.job()
    earlier = update(jobs_table).where(jobs_table.c.id == job).values(due_at=database_in(timedelta(minutes=-2)))
    house.database.write(lambda c: c.execute(earlier).rowcount)
    assert timedelta(minutes=2) <= house.claim(job).waited < timedelta(minutes=3)


@ONLY_SQLITE
def test_the_bells_in_each_queue_are_measured_while_the_broker_says(
    house: House, doorbells: Doorbells, own_valkey: Valkey
) -> None:
    def lying(queue: str) -> float | None:
        return REGISTRY.get_sample_value("aswhom_bells_lying", {"queue": queue})

    again = REGISTRY.get_sample_value("aswhom_bells_rung_again_total") or 0
    doorbells.jobs([replace(bell, again=True) for bell in house.accept(house.delivery("d1")).bells])
    measure_lying(doorbells)
    assert {queue: lying(queue) for queue in QUEUES} == dict.fromkeys(QUEUES, 0) | {"hybrid": 1}
    assert REGISTRY.get_sample_value("aswhom_bells_rung_again_total") == again + 1
    own_valkey.kill()
    measure_lying(doorbells)
    assert all(isnan(lying(queue) or 0) for queue in QUEUES)


def test_who_has_the_threads_has_fewer_bells_ahead_of_a_newcomers_and_never_less_than_acceptance_rings() -> None:
    """Threads that wait for an upstream which hangs come back a window of bells later, for whoever comes new."""
    shares = partial(bells.share_out, window=128, unheard=lambda: 0)
    hangs, comes = bells.Busy(0, True, running=64), bells.Busy(0, True)
    assert shares({"acme": hangs}) == {"acme": 64}
    assert shares({"acme": hangs, "globex": comes}) == {"acme": bells.FIRST_SHARE, "globex": 64}
    assert shares({"acme": hangs._replace(rung=bells.FIRST_SHARE), "globex": comes}) == {"globex": 64}
    assert set(shares({f"t{n}": hangs for n in range(32)}).values()) == {4}
    assert shares({"acme": hangs._replace(running=1_000)}) == {"acme": bells.FIRST_SHARE}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["of the pattern", "of another pattern"])
def test_what_workers_have_of_a_tenant_counts_into_its_share_and_into_no_others(house: House, elsewhere: bool) -> None:
    for tenant, number in (("acme", 60), ("globex", 2)):
        for n in range(number):
            house.accept(house.delivery(f"{tenant}-{n}", tenant=tenant, text=f"{tenant}-{n}"))
    for job in house.database.read(
        lambda c: c.execute(select(jobs_table.c.id).where(jobs_table.c.tenant_id == "acme").limit(12)).scalars().all()
    ):
        house.claim(job)
        if elsewhere:  # the same threads run it
            move = update(jobs_table).where(jobs_table.c.id == job).values(pattern="service")
            house.database.write(lambda c, move=move: c.execute(move).rowcount)  # type: ignore[misc]
    house.database.write(lambda c: c.execute(update(jobs_table).values(rung_until=None)).rowcount)
    ring = MemoryRing()
    reconcile.dispatch(house.database, ring, window=64)
    rung = [bell.tenant for bell in ring.bells]
    assert (rung.count("acme"), rung.count("globex")) == (32 - 12, 2)


def test_where_every_due_job_has_its_bell_nobody_is_asked_and_nothing_written(house: House) -> None:
    house.accept(house.delivery("d1"))
    ring = MemoryRing(lying=lambda: pytest.fail("the broker was asked"))
    dispatched = statements_of(partial(reconcile.dispatch, house.database, ring, window=WINDOW))
    assert ring.bells == []
    assert not [statement for statement, _ in dispatched if "UPDATE jobs" in statement]


def test_a_queue_that_nobody_hears_does_not_grow_for_as_long_as_there_is_work(
    house: House, doorbells: Doorbells, own_valkey: Valkey
) -> None:
    """Bells are outstanding for half a minute, and a broker keeps them until it is full."""

    def accept() -> None:
        doorbells.jobs(house.accept(house.delivery(key := house.ids("del"), text=key)).bells)

    for _ in range(3 * WINDOW):
        accept()

    def half_a_minute_passes() -> None:
        lapse = update(jobs_table).values(rung_until=jobs_table.c.created_at)
        house.database.write(lambda c: c.execute(lapse).rowcount)
        reconcile.dispatch(house.database, doorbells, window=WINDOW)

    for _ in range(60):
        half_a_minute_passes()
        accept()
    assert queued(own_valkey) <= 2 * (bells.FIRST_SHARE + WINDOW)
    with own_valkey.client() as client:
        client.delete("aswhom:hybrid")  # all of them were heard
    half_a_minute_passes()
    assert queued(own_valkey) == WINDOW


def test_each_job_that_ends_rings_for_one_more_and_for_none_again(house: House) -> None:
    """Else workers whose jobs take minutes would be rung for ever more of them with each that ends."""
    first, *_ = (house.accept(house.delivery(key, text=key)).jobs[0] for key in ("d1", "d2", "d3"))
    house.database.write(lambda c: c.execute(update(jobs_table).values(rung_until=None)).rowcount)
    ring = partial(house.database.write, partial(bells.ring_due, tenant="acme", pattern="hybrid"))
    assert [bell.job for bell in ring()] == [first]
    lapse = update(jobs_table).where(jobs_table.c.id == first).values(rung_until=jobs_table.c.created_at)
    house.database.write(lambda c: c.execute(lapse).rowcount)
    assert ring() == (), "the dispatcher knows whether the first bell is lost or still lies in the queue"
