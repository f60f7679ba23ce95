"""The hold: a real worker and all of housekeeping's duties, and nothing goes out before the release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select, update

from identity.accounts.states import get_account
from identity.audit import Act
from identity.audit.tables import audit
from identity.connect.reasons import Refusal
from identity.errors import Unavailable
from identity.hold import find_hold, release_hold, set_hold
from identity.minting.mints import Mint, begin_mint
from identity.model import Credential
from identity.refresh.tables import refresh_intents
from identity.tables import grants
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import Origin, claim
from pipeline import metrics
from pipeline.authoring.registry import Registry
from pipeline.authoring.timetable import Timetable
from pipeline.db.database import DatabaseSettings
from pipeline.duties import gauges, reconcile
from pipeline.intervals import RHYTHMS
from pipeline.jobs.intents import Ended
from pipeline.revocation.tables import revocations
from pipeline.run import Run
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.schedules.changes import NewSchedule, add_schedule
from pipeline.states import JobState
from pipeline.tables import jobs as jobs_table
from pipeline.tables import schedules, workflow_settings
from pipeline.upkeep import duties_of
from pipeline.views.calls_out import CallsOut, calls_out
from pipeline.views.overview import overview
from pipeline.workflow import SERVICE, Tick, workflow
from tests.ledger.acts import open_, revoke
from tests.ledger.house import House, Say, account_scope
from tests.ledger.house import intent_of as intent
from tests.ledger.workers import ADA, Workers, declare
from tests.ledgers import TURN
from tests.webhooks.parts import MemoryRing

HOUR = timedelta(hours=1)


@workflow(agent="tester", event=Tick, uses={Say: SERVICE})
def hourly(run: Run[Any], event: Tick) -> None:
    run.do(Say(text=event.slot), as_=run.service)


def act(house: House, why: str | None = "a restore") -> Act:
    return Act(audit_id=house.ids("aud"), by="cli:root", now=datetime.now(UTC), why=why)


def hold(house: House) -> None:
    said = act(house)
    assert house.database.write(lambda c: set_hold(c, said))


def release(house: House) -> None:
    said = act(house, why=None)
    assert house.database.write(lambda c: release_hold(c, said)) is not None


@pytest.fixture
def runtime(workers: Workers, ledger_url: str) -> Iterator[Runtime]:
    """All the parts of a process, among the same pretend provider."""
    rung = MemoryRing()
    settings = RuntimeSettings(
        database=DatabaseSettings(url=ledger_url, turn_timeout=TURN),
        keys=Keys(vault={1: b"k" * 32}, signing=b"s" * 32),
        base_url="http://127.0.0.1:1",
        allow_hosts=frozenset({"127.0.0.1"}),
    )
    made = Runtime(settings, Registry([workers.house.workflow, hourly]), rung)
    yield made
    made.close()


def tick(runtime: Runtime) -> None:
    """Each duty of housekeeping once, as if it had its turn."""
    for duty in duties_of(runtime):
        duty.run()


def went_out(workers: Workers) -> int:
    provider = workers.provider
    return (
        provider.presented.total() + len(provider.ended) + len(provider.checked) + provider.asked + len(workers.tokens)
    )


def test_while_it_is_held_a_worker_takes_nothing_and_after_the_release_it_is_done(workers: Workers) -> None:
    house = workers.house
    hold(house)
    job = house.job()  # a delivery, accepted as ever
    workers.work(job)
    assert (house.row(job).state, house.row(job).fence) == (JobState.QUEUED, 0), "it was never claimed"
    assert workers.tokens == []
    release(house)
    workers.work(job)
    assert house.row(job).state == JobState.DONE
    assert workers.tokens == ["token-acme.ada-1"]


def test_a_run_waits_at_its_next_step_spends_no_try_and_repeats_nothing(workers: Workers) -> None:
    house = workers.house

    def held_between(run: Run[Any], event: Any) -> None:
        run.do(Say(text="before"), as_=run.user)
        if len(workers.tokens) == 1:
            hold(house)
        run.do(Say(text="after"), as_=run.user)

    declare(workers, held_between)
    job = house.job()
    workers.work(job)
    row = house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert "aswhom hold release" in row.reason
    workers.work(job)
    assert len(workers.tokens) == 1
    assert house.database.read(calls_out) == CallsOut(calls=0, tokens=0)
    release(house)
    workers.tokens.append("released")
    workers.work(job)
    assert house.row(job).state == JobState.DONE
    assert workers.tokens == ["token-acme.ada-1", "released", "token-acme.ada-1"]


def test_an_opening_beside_the_hold_opens_nothing_and_a_call_that_is_out_counts_as_such(house: House) -> None:
    first, second = (house.claim(house.job()) for _ in range(2))
    open_(house, intent(house, first))
    hold(house)
    assert isinstance(open_(house, intent(house, second)), Ended)
    assert house.database.read(calls_out) == CallsOut(calls=1, tokens=0)


def test_while_it_is_held_no_token_is_refreshed_or_minted(workers: Workers) -> None:
    house = workers.house
    hold(house)
    with pytest.raises(Unavailable, match="the installation is held"):
        workers.coordinator().refresh(ADA, after_generation=1)
    grant = house.database.read(lambda c: c.execute(select(grants).where(grants.c.account_id == ADA)).one())
    mint = Mint(
        id="mint",
        account=house.database.read(partial(get_account, account=ADA)),
        generation=1,
        consented=grant.consented,
        repository="acme/site",
        scopes=(),
        started_at=datetime.now(UTC),
    )
    with pytest.raises(Unavailable, match="the installation is held"):
        house.database.write(partial(begin_mint, new=mint))
    assert house.database.read(lambda c: c.execute(select(refresh_intents)).all()) == []
    assert went_out(workers) == 0
    release(house)
    assert workers.coordinator().refresh(ADA, after_generation=1) == 2
    assert workers.provider.presented == {"refresh-acme.ada-1": 1}


def test_while_it_is_held_a_code_is_not_exchanged_and_its_link_stays_good(workers: Workers) -> None:
    hold(workers.house)
    with pytest.raises((Refusal, AssertionError), match="held"):
        workers.ada_connects_anew()
    assert workers.provider.presented.total() == 0
    release(workers.house)
    workers.ada_connects_anew()
    assert workers.generation() == 2


def test_while_it_is_held_a_revocation_is_effective_at_once_and_only_the_provider_is_asked_later(
    workers: Workers, runtime: Runtime
) -> None:
    house = workers.house
    job = house.job()
    hold(house)
    made = revoke(house, account_scope())
    assert runtime.revoker.advance(made)
    assert house.row(job).state == JobState.CANCELLED
    tick(runtime)
    row = house.database.read(lambda c: c.execute(select(revocations).where(revocations.c.id == made)).one())
    assert row.receipt["provider"]["answer"] == "pending"
    assert went_out(workers) == 0
    release(house)
    tick(runtime)
    assert len(workers.provider.ended) == 1
    tries = select(withdrawals.c.tries).where(withdrawals.c.revocation_id == made)
    assert house.database.read(lambda c: c.execute(tries).scalar_one()) == 1


def test_a_withdrawal_that_was_found_before_the_hold_is_not_claimed_while_it_stands(workers: Workers) -> None:
    house, now = workers.house, datetime.now(UTC)
    found: dict[str, Any] = {
        "id": "wit-1",
        "account_id": ADA,
        "origin": Origin.GRANT,
        "credential": Credential.AUTHORIZATION_CODE,
    }
    found |= {"generation": 1, "consented": 1, "state": "pending", "due_at": now, "created_at": now}
    house.database.write(lambda c: c.execute(withdrawals.insert().values(found)).rowcount)
    take = partial(claim, withdrawal="wit-1", now=now, until=now + HOUR)
    hold(house)
    assert house.database.write(take) is None
    release(house)
    assert house.database.write(take) is not None


def _fill(house: House) -> str:
    """A job that is due, a grant that is to be kept alive, and a schedule that missed slots."""
    now = datetime.now(UTC)
    due = {"keepalive_due": now - HOUR, "expires_at": now}

    def write(c: Any) -> None:
        c.execute(update(grants).where(grants.c.account_id == ADA).values(due))
        new = NewSchedule(
            tenant="acme", name="hourly", workflow=hourly, timetable=Timetable(cron="0 * * * *", zone="UTC")
        )
        add_schedule(c, new, now=now)
        c.execute(workflow_settings.insert().values(tenant_id="acme", workflow="hourly", enabled=True, config={}))
        c.execute(update(schedules).values(next_at=now - 3 * HOUR))

    house.database.write(write)
    return house.job()


def test_a_restored_copy_whose_processes_start_presents_nothing_to_anybody(workers: Workers, runtime: Runtime) -> None:
    house = workers.house
    job = _fill(house)
    hold(house)
    house.database.write(lambda c: c.execute(update(jobs_table).values(rung_until=None)).rowcount)
    for _ in range(2):
        tick(runtime)
        assert runtime.schedules.fire_due(datetime.now(UTC)) == []
        runtime.worker.handle(job)
        runtime.worker.handle(house.job())
    assert went_out(workers) == 0
    assert _bells(house) == 0
    release(house)
    assert len(runtime.schedules.fire_due(datetime.now(UTC))) == 1, "missed slots are caught up with"
    tick(runtime)
    assert _bells(house) > 0
    runtime.worker.handle(job)
    assert house.row(job).state == JobState.DONE
    assert workers.provider.presented == {"refresh-acme.ada-1": 1}
    assert workers.tokens == ["access-1"]


def test_a_duty_that_asks_others_does_nothing_while_it_is_held(house: House) -> None:
    done: list[str] = []
    outward = [name for name, rhythm in RHYTHMS.items() if rhythm.outward]
    assert sorted(outward) == ["catch-up", "keep-alive", "leftovers", "withdrawals"]
    duties = [reconcile.in_rhythm(house.database, name, partial(done.append, name)) for name in (*outward, "wake")]
    hold(house)
    for duty in duties:
        duty.run()
    assert done == ["wake"]
    release(house)
    for duty in duties:
        duty.run()
    assert done == ["wake", *outward, "wake"]


def _bells(house: House) -> int:
    rung = select(func.count()).select_from(jobs_table).where(jobs_table.c.rung_until.is_not(None))
    return int(house.database.read(lambda c: c.execute(rung).scalar_one()))


def test_what_fell_due_while_it_was_held_is_missed_and_caught_up_with_once(workers: Workers, runtime: Runtime) -> None:
    house = workers.house
    _fill(house)
    now = datetime.now(UTC)
    runtime.schedules.fire_due(now)
    hold(house)
    for minutes in range(0, 241, 1):
        assert runtime.schedules.fire_due(now + timedelta(minutes=minutes)) == []
    release(house)
    assert len(runtime.schedules.fire_due(now + timedelta(minutes=241))) == 1


def test_who_holds_when_and_why_is_kept_until_the_release_and_in_the_audit(house: House) -> None:
    assert house.database.read(find_hold) is None
    gauges.measure(house.database)
    assert metrics.HELD._value.get() == 0
    hold(house)
    again = replace(act(house), by="cli:other", why="another reason")
    assert not house.database.write(lambda c: set_hold(c, again))
    gauges.measure(house.database)
    assert metrics.HELD._value.get() == 1
    for whose in (None, "acme"):
        seen = house.database.read(partial(overview, of=whose and [whose], now=datetime.now(UTC)))[whose].hold
        assert seen is not None
        assert (seen.by, seen.why) == ("cli:root", "a restore")
    release(house)
    last = act(house)
    assert house.database.write(lambda c: release_hold(c, last)) is None
    records = select(audit).where(audit.c.kind.like("hold.%")).order_by(audit.c.number)
    told = house.database.read(lambda c: c.execute(records).all())
    assert [(row.kind, row.reason) for row in told] == [
        ("hold.set", "by cli:root: a restore"),
        ("hold.released", "by cli:root"),
    ]
    assert told[1].detail["held_why"] == "a restore"
