"""Schedules in the ledger: what fires, once, for whom, and what happens to what was missed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, select, update

from identity.errors import BadInput, Unavailable
from identity.model import PrincipalKind
from identity.sql.store import Store
from identity.tables import principals
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.authoring.timetable import CatchUp, Timetable
from pipeline.db.database import Database
from pipeline.model import BEAT, Bell
from pipeline.schedules.changes import (
    NewSchedule,
    add_schedule,
    ensure_schedule,
    pause_schedule,
    remove_schedule,
    resume_schedule,
)
from pipeline.schedules.punctuality import look
from pipeline.schedules.slots import SlotFirer
from pipeline.tables import jobs, schedules, slots, workflow_settings
from pipeline.workflow import SERVICE, Daily, Tick, workflow
from tests.heartbeats import ticked
from tests.ledger.house import House, Say, say_it
from tests.ledgers import open_ledger
from tests.waiting import PATIENCE

T = TypeVar("T")

START = datetime(2026, 5, 1, 8, 30, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NINE = datetime(2026, 5, 1, 9, tzinfo=UTC)


def digest(schedule: Daily | None = None, *, name: str = "digest") -> Workflow:
    @workflow(agent="tester", schedule=schedule, uses={Say: SERVICE}, name=name)
    def declared(run: Any, event: Tick) -> None:
        run.do(Say(text=event.slot), as_=run.service)

    return declared


class ScheduledLedger:
    """A ledger whose tenants have the digest on, and beats over it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.seconds = 0.0
        self.digest = digest()
        self.beat = self.new_beat(self.digest)

    def new_beat(self, *workflows: Workflow) -> SlotFirer:
        return SlotFirer(self.database, Registry(workflows), monotonic=lambda: self.seconds)

    def switch_on(self, tenant: str, name: str = "digest") -> None:
        row = {"tenant_id": tenant, "workflow": name, "enabled": True, "config": {}}
        self.database.write(lambda c: c.execute(workflow_settings.insert().values(row)).rowcount)

    def add(self, name: str = "mornings", *, tenant: str = "acme", cron: str = "0 9 * * *", **how: Any) -> str:
        wanted = NewSchedule(
            tenant=tenant, name=name, workflow=self.digest, timetable=Timetable(cron=cron, zone="UTC"), **how
        )
        self.database.write(lambda c: add_schedule(c, wanted, now=START))
        return wanted.id

    def row(self, id: str) -> Any:
        return self.database.read(lambda c: c.execute(select(schedules).where(schedules.c.id == id)).one())

    def fired(self, tenant: str = "acme") -> list[str]:
        """The slots of a tenant's jobs, oldest first."""
        statement = select(jobs.c.event).where(jobs.c.tenant_id == tenant)
        return sorted(event["slot"] for event in self.database.read(lambda c: list(c.execute(statement).scalars())))


@pytest.fixture
def ledger(house: House) -> ScheduledLedger:
    made = ScheduledLedger(house.database)
    made.switch_on("acme")
    made.switch_on("globex")
    return made


def iso(*moments: datetime) -> list[str]:
    return [moment.isoformat() for moment in moments]


def test_a_slot_fires_when_it_is_due_and_never_again(ledger: ScheduledLedger) -> None:
    id = ledger.add()
    assert ledger.beat.fire_due(NINE - MINUTE) == []
    bells = ledger.beat.fire_due(NINE)
    assert len(bells) == 1
    assert ledger.beat.fire_due(NINE) == ledger.beat.fire_due(NINE + HOUR) == []
    assert ledger.fired() == iso(NINE)
    assert (ledger.row(id).next_at, ledger.row(id).last_slot) == (NINE + DAY, NINE)


def test_the_job_is_told_its_slot_and_which_schedule_it_is_of(ledger: ScheduledLedger) -> None:
    ledger.add("mornings")
    ledger.add("noon", cron="0 12 * * *")
    ledger.beat.fire_due(NINE)
    ledger.beat.fire_due(NINE + 3 * HOUR)
    events = ledger.database.read(lambda c: list(c.execute(select(jobs.c.event).order_by(jobs.c.accepted)).scalars()))
    assert [event["schedule"] for event in events] == ["mornings", "noon"]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        (CatchUp.SKIP, []),
        (CatchUp.ONCE, [NINE + 4 * DAY]),
        (CatchUp.ALL, [NINE + 2 * DAY, NINE + 3 * DAY, NINE + 4 * DAY]),
    ],
)
def test_after_days_without_a_beat_it_catches_up_as_it_is_set_to(
    ledger: ScheduledLedger, catch_up: CatchUp, expected: list[datetime]
) -> None:
    id = ledger.add(catch_up=catch_up, at_most=3)
    ledger.beat.fire_due(NINE + 4 * DAY + HOUR)
    assert ledger.fired() == iso(*expected)
    assert ledger.row(id).next_at == NINE + 5 * DAY
    ledger.beat.fire_due(NINE + 5 * DAY)
    assert ledger.fired() == iso(*expected, NINE + 5 * DAY)


def test_what_passes_during_a_pause_is_not_made_up_for(ledger: ScheduledLedger) -> None:
    id = ledger.add(catch_up=CatchUp.ALL)
    ledger.database.write(lambda c: pause_schedule(c, id))
    ledger.beat.fire_due(NINE + 3 * DAY)
    later = NINE + 3 * DAY + HOUR
    assert ledger.database.write(lambda c: resume_schedule(c, id, now=later)) == NINE + 4 * DAY
    ledger.beat.fire_due(later)
    assert ledger.fired() == []
    ledger.beat.fire_due(NINE + 4 * DAY)
    assert ledger.fired() == iso(NINE + 4 * DAY)
    with pytest.raises(BadInput, match="is not paused"):
        ledger.database.write(lambda c: resume_schedule(c, id, now=later))


def test_a_removed_schedule_that_is_added_again_fires_no_slot_twice(ledger: ScheduledLedger) -> None:
    id = ledger.add()
    ledger.beat.fire_due(NINE)
    ledger.database.write(lambda c: remove_schedule(c, id, now=NINE))
    ledger.beat.fire_due(NINE + DAY)
    ledger.add()  # by a clock that is behind: 09:00 is its next slot
    ledger.beat.fire_due(NINE + HOUR)
    assert ledger.fired() == iso(NINE)
    ledger.beat.fire_due(NINE + DAY)
    assert ledger.fired() == iso(NINE, NINE + DAY)
    with pytest.raises(BadInput, match="already"):
        ledger.add()


def test_jitter_moves_the_firing_and_not_the_slot(ledger: ScheduledLedger) -> None:
    id = ledger.add(jitter=timedelta(minutes=30))
    later = ledger.row(id).next_at - NINE
    assert timedelta() < later < timedelta(minutes=30)
    ledger.beat.fire_due(NINE + later - timedelta(seconds=1))
    assert ledger.fired() == []
    ledger.beat.fire_due(NINE + later)
    assert ledger.fired() == iso(NINE)
    assert ledger.row(id).next_at == NINE + DAY + later


def test_a_schedule_that_cannot_be_kept_says_why_holds_up_no_other_and_catches_up_when_it_is_mended(
    ledger: ScheduledLedger,
) -> None:
    ledger.add("first")
    ledger.add("second", tenant="globex")
    ill = ledger.row("acme:first")
    ledger.database.write(
        lambda c: c.execute(update(schedules).where(schedules.c.id == ill.id).values(workflow="gone"))
    )
    ledger.beat.fire_due(NINE)
    assert ledger.fired("globex") == iso(NINE)
    assert "no workflow is named 'gone'" in ledger.row(ill.id).fault
    found = ledger.database.read(lambda c: look(c, now=NINE + HOUR))
    assert list(found.faults) == [ill.id]
    assert found.late == timedelta()
    ledger.new_beat(ledger.digest, digest(name="gone")).fire_due(NINE + 2 * HOUR)
    ledger.switch_on("acme", "gone")
    assert ledger.row(ill.id).fault is None
    assert ledger.row(ill.id).next_at == NINE + DAY


def test_what_was_fired_is_rung_for_whatever_fails_beside_it_and_a_failure_is_tried_again_later(
    ledger: ScheduledLedger,
) -> None:
    for name in ("one", "two", "zwei"):
        ledger.add(name)
    ledger.add("three", tenant="globex")
    bad = update(schedules).where(schedules.c.name == "two").values(catch_up="nonsense", next_at=NINE - MINUTE)
    ledger.database.write(lambda c: c.execute(bad).rowcount)
    service = update(principals).where(principals.c.id == "globex.service")
    ledger.database.write(lambda c: c.execute(service.values(kind=PrincipalKind.USER)).rowcount)
    rung: list[str] = []

    def ring(bells: Sequence[Bell]) -> None:
        rung.extend(bell.job for bell in bells)

    with pytest.raises(ExceptionGroup, match="schedules that could not be fired") as told:
        ledger.beat.fire_due(NINE, ring)
    assert [type(failure) for failure in told.value.exceptions] == [ValueError]
    assert (len(rung), ledger.fired(), ledger.fired("globex")) == (2, iso(NINE, NINE), [])
    assert "ValueError" in ledger.row("acme:two").fault
    assert "no service principal" in ledger.row("globex:three").fault
    ledger.beat.fire_due(NINE + timedelta(seconds=5), ring)  # neither is tried at every tick
    ledger.database.write(lambda c: c.execute(service.values(kind=PrincipalKind.SERVICE)).rowcount)
    mended = update(schedules).where(schedules.c.name == "two").values(catch_up="once")
    ledger.database.write(lambda c: c.execute(mended).rowcount)
    ledger.seconds += 60
    ledger.beat.fire_due(NINE + timedelta(seconds=10), ring)
    assert (len(rung), ledger.row("globex:three").fault, ledger.row("acme:two").fault) == (4, None, None)


def test_a_schedule_in_code_follows_the_code_and_keeps_its_pause(ledger: ScheduledLedger) -> None:
    for declared in (Daily(cron="0 9 * * *"), Daily(cron="0 10 * * *", zone="Europe/Berlin", jitter=MINUTE)):
        ledger.new_beat(digest(declared)).fire_due(START)
        row = ledger.row("acme:digest")
        assert (row.cron, row.zone, row.origin) == (declared.cron, declared.zone, "code")
    ledger.database.write(lambda c: pause_schedule(c, "acme:digest"))
    ledger.new_beat(digest(Daily(cron="0 11 * * *"))).fire_due(START)
    assert (ledger.row("acme:digest").cron, ledger.row("acme:digest").paused) == ("0 11 * * *", True)
    ledger.new_beat(digest()).fire_due(START)
    assert ledger.row("acme:digest").removed_at == START
    ledger.new_beat(digest(Daily(cron="0 9 * * *"))).fire_due(START)
    assert ledger.row("acme:digest").removed_at is None
    with pytest.raises(BadInput, match="comes with its workflow"):
        ledger.database.write(lambda c: remove_schedule(c, "acme:digest", now=START))


def test_a_schedule_in_code_that_cannot_be_kept_stops_no_other(
    ledger: ScheduledLedger, caplog: pytest.LogCaptureFixture
) -> None:
    never = replace(digest(Daily(cron="0 9 * * *")), name="of no use")  # as no declaration has it
    ledger.switch_on("acme", never.name)
    ledger.new_beat(never, digest(Daily(cron="0 9 * * *"))).fire_due(START)
    assert [(vars(line)["action"], vars(line)["workflow"]) for line in caplog.records] == [
        ("schedule.faulty", "of no use")
    ]
    assert ledger.row("acme:digest").next_at == NINE


def test_what_is_due_stays_due_when_the_code_only_changes_how_to_catch_up(ledger: ScheduledLedger) -> None:
    ledger.new_beat(digest(Daily(cron="0 9 * * *"))).fire_due(START)
    changed = digest(Daily(cron="0 9 * * *", catch_up=CatchUp.ALL))
    ledger.new_beat(changed).fire_due(NINE + DAY)
    assert ledger.fired() == iso(NINE, NINE + DAY)


def test_a_slot_that_waits_for_its_jitter_fires_when_the_code_changes_the_jitter(ledger: ScheduledLedger) -> None:
    ledger.new_beat(digest(Daily(cron="0 9 * * *", jitter=50 * MINUTE))).fire_due(START)
    later = ledger.row("acme:digest").next_at - NINE
    assert later > 2 * MINUTE
    ledger.new_beat(digest(Daily(cron="0 9 * * *"))).fire_due(NINE + later - MINUTE)
    assert ledger.fired() == iso(NINE)
    ledger.new_beat(digest(Daily(cron="0 9 * * *", jitter=50 * MINUTE))).fire_due(NINE + later)
    assert (ledger.fired(), ledger.row("acme:digest").next_at) == (iso(NINE), NINE + DAY + later)


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [(CatchUp.SKIP, []), (CatchUp.ONCE, [NINE + 2 * HOUR]), (CatchUp.ALL, [NINE + HOUR, NINE + 2 * HOUR])],
)
def test_what_passed_by_the_old_line_is_caught_up_with_before_the_code_changes_it(
    ledger: ScheduledLedger, caplog: pytest.LogCaptureFixture, catch_up: CatchUp, expected: list[datetime]
) -> None:
    ledger.new_beat(digest(Daily(cron="0 * * * *", catch_up=catch_up, at_most=2))).fire_due(START)
    changed = digest(Daily(cron="30 12 * * *", zone="Europe/Berlin", catch_up=catch_up, at_most=2))
    ledger.new_beat(changed).fire_due(NINE + 2 * HOUR + 20 * MINUTE)
    assert ledger.fired() == iso(*expected)
    assert "schedule.caught_up" in [vars(line).get("action") for line in caplog.records]
    row = ledger.row("acme:digest")
    assert (row.cron, row.zone, row.next_at) == ("30 12 * * *", "Europe/Berlin", NINE + 25 * HOUR + 30 * MINUTE)


def test_a_line_that_cannot_be_kept_gives_way_to_the_new_one_with_what_is_due(ledger: ScheduledLedger) -> None:
    ledger.new_beat(digest(Daily(cron="0 9 * * *"))).fire_due(START)
    gone = update(schedules).values(zone="Mars/Olympus")  # as one that tzdata has no more
    ledger.database.write(lambda c: c.execute(gone).rowcount)
    ledger.new_beat(digest(Daily(cron="0 12 * * *"))).fire_due(NINE + HOUR)
    row = ledger.row("acme:digest")
    assert (row.cron, row.zone) == ("0 12 * * *", "UTC")
    ledger.new_beat(digest(Daily(cron="0 12 * * *"))).fire_due(NINE + HOUR)
    assert (ledger.fired(), ledger.row("acme:digest").next_at) == (iso(NINE), NINE + 3 * HOUR)


def test_a_tenants_own_schedule_is_not_taken_over_by_code_of_the_same_name(ledger: ScheduledLedger) -> None:
    ledger.add("digest", cron="0 7 * * *")
    ledger.database.write(lambda c: ensure_schedule(c, "acme", digest(Daily(cron="0 9 * * *")), now=START))
    assert (ledger.row("acme:digest").cron, ledger.row("acme:digest").origin) == ("0 7 * * *", "tenant")


def test_where_the_workflow_is_switched_off_slots_pass_unused(ledger: ScheduledLedger) -> None:
    id = ledger.add()
    ledger.database.write(lambda c: c.execute(workflow_settings.update().values(enabled=False)).rowcount)
    ledger.beat.fire_due(NINE)
    assert ledger.fired() == []
    assert ledger.row(id).next_at == NINE + DAY


class Repeating:
    """A ledger that undoes what it is asked first, and does it the second time."""

    def __init__(self, ledger: Store) -> None:
        self.read = ledger.read
        self._ledger = ledger

    def write(self, fn: Callable[[Connection], T]) -> T:
        def undone(connection: Connection) -> None:
            fn(connection)
            raise InterruptedError

        with suppress(InterruptedError):
            self._ledger.write(undone)
        return self._ledger.write(fn)


def test_what_a_turn_left_out_is_told_of_once_however_often_it_is_written(
    ledger: ScheduledLedger, caplog: pytest.LogCaptureFixture
) -> None:
    id = ledger.add(catch_up=CatchUp.SKIP)
    ledger.database.write(lambda c: c.execute(workflow_settings.update().values(enabled=False)).rowcount)
    counted = partial(REGISTRY.get_sample_value, "aswhom_beat_slots_left_out_total", {"catch_up": "skip"})
    before = counted() or 0
    with caplog.at_level("INFO"):
        SlotFirer(Repeating(ledger.database), Registry([ledger.digest])).fire_due(NINE + DAY + HOUR)
    told = [vars(one)["action"] for one in caplog.records if vars(one).get("schedule") == id]
    assert sorted(told) == ["schedule.caught_up", "schedule.skipped"]
    assert (counted() or 0) - before == 1


class LeavesAfter:
    """A ledger that has no turn any more after so many writes."""

    def __init__(self, ledger: Store, writes: int) -> None:
        self.read = ledger.read
        self._ledger = ledger
        self._left = writes

    def write(self, fn: Callable[[Connection], T]) -> T:
        if not self._left:
            raise Unavailable("no turn")
        self._left -= 1
        return self._ledger.write(fn)


@pytest.mark.parametrize("writes", [2, 3], ids=["as the fault is kept", "at the next schedule"])
def test_a_failure_is_told_of_though_the_ledger_goes_away_after_it(ledger: ScheduledLedger, writes: int) -> None:
    for name in ("one", "two"):
        ledger.add(name)
    bad = update(schedules).where(schedules.c.name == "one").values(catch_up="nonsense", next_at=NINE - MINUTE)
    ledger.database.write(lambda c: c.execute(bad).rowcount)
    leaving = LeavesAfter(ledger.database, writes)  # the first takes the code over
    with pytest.raises(ExceptionGroup, match="schedules that could not be fired") as told:
        SlotFirer(leaving, Registry([ledger.digest])).fire_due(NINE)
    assert [type(failure) for failure in told.value.exceptions] == [ValueError, Unavailable]


def test_many_beats_at_once_fire_each_slot_once(ledger: ScheduledLedger, ledger_url: str) -> None:
    for number in range(5):
        ledger.add(f"s{number}", catch_up=CatchUp.ALL, at_most=5)
    barrier, bells, errors = threading.Barrier(4), [], []

    def keep() -> None:
        database = open_ledger(ledger_url)
        try:
            barrier.wait(PATIENCE)
            bells.extend(SlotFirer(database, Registry([ledger.digest])).fire_due(NINE + 4 * DAY))
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=keep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ledger.fired() == sorted(iso(*(NINE + day * DAY for day in range(5))) * 5)
    assert ledger.database.read(lambda c: len(c.execute(select(slots)).all())) == 25


class Interrupted(Registry):
    """Between a beat's look at a schedule that is due and its move, something else comes about."""

    def __init__(self, declared: Workflow, meanwhile: Callable[[], object]) -> None:
        super().__init__([declared])
        self._meanwhile = meanwhile

    def get(self, name: str) -> Workflow:
        self._meanwhile()
        return super().get(name)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # on SQLite nobody writes meanwhile
def test_a_beat_that_stood_still_before_its_move_takes_nothing_back_that_another_did(ledger: ScheduledLedger) -> None:
    id = ledger.add(catch_up=CatchUp.ALL, at_most=5)

    def another() -> None:
        thread = threading.Thread(target=ledger.beat.fire_due, args=(NINE + DAY,))
        thread.start()
        thread.join()

    late = SlotFirer(ledger.database, Interrupted(ledger.digest, another))
    assert late.fire_due(NINE) == []
    assert (ledger.row(id).next_at, ledger.row(id).last_slot) == (NINE + 2 * DAY, NINE + DAY)
    assert ledger.fired() == iso(NINE, NINE + DAY)


def test_a_tick_ends_and_what_it_has_no_time_for_is_not_missed(ledger: ScheduledLedger) -> None:
    for number in range(7):
        ledger.add(f"s{number}", catch_up=CatchUp.SKIP)

    def slowly(bells: Sequence[Bell]) -> None:
        ledger.seconds += 6

    fired = [len(ledger.beat.fire_due(NINE + seconds * SECOND, slowly)) for seconds in (0, 50, 100, 150)]
    assert fired == [2, 2, 2, 1]
    for tick in range(3):
        ledger.beat.fire_due(NINE + DAY - MINUTE + tick * 5 * MINUTE, slowly)
    assert ledger.fired() == iso(*[NINE] * 7)  # for five minutes nothing looked at the others


def test_a_clock_far_ahead_for_one_tick_silences_no_schedule_until_then(
    ledger: ScheduledLedger, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + DAY
    ids = [ledger.add("hourly", cron="30 * * * *", jitter=MINUTE), ledger.add("daily", cron=f"30 {now.hour} * * *")]

    def next_at() -> list[datetime]:
        return [ledger.row(id).next_at for id in ids]

    ledger.beat.fire_due(now)
    before, far = next_at(), now + 400 * DAY + 40 * MINUTE
    ledger.new_beat(ledger.digest).fire_due(far)
    ledger.beat.fire_due(now)
    assert min(next_at()) > far  # they are not looked for at every tick
    ledger.seconds += 60
    ledger.beat.fire_due(now)
    assert next_at() == before
    (told,) = [vars(line) for line in caplog.records if vars(line).get("action") == "schedule.brought_back"]
    assert told["schedules"] == 2
    assert len(ledger.beat.fire_due(now + 31 * MINUTE)) == 2
    fired = ledger.fired()
    ledger.beat.fire_due(far)
    assert ledger.fired() == fired  # the slots of that time were fired when it was not yet come


def test_a_beat_whose_clock_is_a_little_ahead_or_far_behind_moves_nothing_back(ledger: ScheduledLedger) -> None:
    id = ledger.add(cron="* * * * *")
    now = datetime.now(UTC)
    ledger.beat.fire_due(now + 4 * MINUTE)
    moved = ledger.row(id).next_at
    assert moved > now + 4 * MINUTE
    for clock in (now, now - 300 * DAY):
        ledger.new_beat(ledger.digest).fire_due(clock)
        assert ledger.row(id).next_at == moved


def test_a_beat_that_stopped_is_seen_by_the_age_of_its_heartbeat_and_by_what_is_due(ledger: ScheduledLedger) -> None:
    ledger.add()
    assert ledger.database.read(lambda c: look(c, now=START)).ticked_at is None
    ticked(ledger.database, BEAT, host="one", at=START)
    ticked(ledger.database, BEAT, host="two", error="OSError", at=START + MINUTE)
    found = ledger.database.read(lambda c: look(c, now=NINE + HOUR))
    assert (found.live, found.ticked_at, found.error, found.late) == (1, START + MINUTE, "OSError", HOUR)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"name": "a name"}, "cannot be an id"),
        ({"name": "n" * 65}, "64 characters"),
        ({"at_most": 0}, "1 to 1000"),
        ({"jitter": -MINUTE}, "before its slot"),
        ({"jitter": DAY + SECOND}, "a day at most"),
    ],
)
def test_what_is_no_schedule_is_refused(how: dict[str, Any], says: str) -> None:
    wanted: dict[str, Any] = {
        "tenant": "acme", "name": "one", "workflow": digest(), "timetable": Timetable(cron="0 9 * * *"), **how,
    }  # fmt: skip
    with pytest.raises(BadInput, match=says):
        NewSchedule(**wanted)


@pytest.mark.parametrize(
    ("name", "says"), [("a name", "cannot be an id"), ("a/b", "cannot be an id"), ("n" * 65, "64 characters at most")]
)
def test_a_workflow_that_could_have_no_schedule_by_its_name_is_refused_where_it_is_declared(
    name: str, says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        digest(name=name)


@pytest.mark.parametrize(("jitter", "says"), [(-MINUTE, "before its slot"), (DAY + SECOND, "a day at most")])
def test_a_jitter_that_cannot_be_kept_is_refused_where_it_is_declared(jitter: timedelta, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Daily(cron="0 9 * * *", jitter=jitter)


def test_a_workflow_that_takes_events_has_no_schedule() -> None:
    with pytest.raises(BadInput, match="takes Opened"):
        NewSchedule(tenant="acme", name="one", workflow=say_it, timetable=Timetable(cron="0 9 * * *"))
