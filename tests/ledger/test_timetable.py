"""Cron lines on the days when clocks change, and which missed slots are made up for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.errors import BadInput
from pipeline.authoring.timetable import CatchUp, Timetable, offset, owed

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(cron: str, zone: str, after: str, number: int) -> list[str]:
    """The next slots, each looked for anew from the one before it, as a beat does."""
    timetable, moment, found = Timetable(cron=cron, zone=zone), utc(after), []
    for _ in range(number):
        moment = timetable.after(moment)
        found.append(moment.strftime("%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # 2026-03-29, Berlin: 02:00 becomes 03:00 at 01:00 UTC. There is no 02:30: it falls due at the change.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-29 01:00", "03-30 00:30"]),
        ("0 3 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-29 01:00", "03-30 01:00"]),
        # 2026-10-25, Berlin: 03:00 becomes 02:00 at 01:00 UTC. 02:30 comes twice, and falls due once.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["10-25 00:30", "10-26 01:30"]),
        ("0 9 * * *", "Europe/Berlin", "2026-10-24 06:59", ["10-24 07:00", "10-25 08:00"]),
        # Every hour is every hour that passes: no hour without, none with two.
        ("15 * * * *", "Europe/Berlin", "2026-10-25 00:00", ["10-25 00:15", "10-25 01:15", "10-25 02:15"]),
        ("15 * * * *", "Europe/Berlin", "2026-03-29 00:00", ["03-29 00:15", "03-29 01:15", "03-29 02:15"]),
        # New York changes at 02:00 local time, on other days.
        ("30 2 * * *", "America/New_York", "2026-03-07 12:00", ["03-08 07:00", "03-09 06:30"]),
        ("30 1 * * *", "America/New_York", "2026-10-31 12:00", ["11-01 05:30", "11-02 06:30"]),
        # Lord Howe Island moves by half an hour, and its winter is our summer.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03 00:00", ["10-03 15:30", "10-04 15:15"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 00:00", ["04-04 14:45", "04-05 15:15"]),
        # Cairo changes at midnight: a day that begins at 01:00 has its 00:00 at 01:00.
        ("0 0 * * *", "Africa/Cairo", "2026-04-23 12:00", ["04-23 22:00", "04-24 21:00"]),
        ("30 23 * * *", "Africa/Cairo", "2026-10-29 12:00", ["10-29 20:30", "10-30 21:30"]),
        # Nepal is 5:45 ahead, and never changes.
        ("0 0 * * *", "Asia/Kathmandu", "2026-03-28 12:00", ["03-28 18:15", "03-29 18:15"]),
        # Samoa had no 30 December 2011: its 09:00 falls due when the 31st begins.
        ("0 9 * * *", "Pacific/Apia", "2011-12-28 20:00", ["12-29 19:00", "12-30 10:00", "12-30 19:00"]),
    ],
)
def test_a_slot_is_when_the_clocks_of_its_zone_say_so(cron: str, zone: str, after: str, expected: list[str]) -> None:
    assert slots(cron, zone, after, len(expected)) == expected


CHANGES = [
    ("Europe/Berlin", "2026-03-29", "2026-10-25"),
    ("America/New_York", "2026-03-08", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05", "2026-10-04"),
    ("Africa/Cairo", "2026-04-24", "2026-10-30"),
]


@pytest.mark.parametrize(("zone", "spring", "autumn"), CHANGES)
@pytest.mark.parametrize("cron", ["30 2 * * *", "45 1 * * *", "30 23 * * *", "0,30 1-3 * * *", "*/20 * * * *"])
def test_from_any_moment_the_next_slot_is_later_and_the_same_as_from_any_other(
    cron: str, zone: str, spring: str, autumn: str
) -> None:
    """Inside a repeated hour CronSim by itself gives times that are over: a schedule would stand still at them."""
    timetable = Timetable(cron=cron, zone=zone)
    for change in (spring, autumn):
        moment = utc(f"{change} 00:00") - 14 * HOUR
        end = moment + 30 * HOUR
        ahead = timetable.latest(moment, end + 48 * HOUR, limit=10_000)
        assert ahead == sorted(set(ahead))
        while moment < end:
            following = timetable.after(moment)
            assert following == next(slot for slot in ahead if slot > moment)
            moment += 11 * MINUTE


@given(
    start=st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1)).map(  # noqa: DTZ001 - made UTC
        lambda moment: moment.replace(tzinfo=UTC)
    ),
    length=st.timedeltas(min_value=timedelta(), max_value=timedelta(days=20)),
    limit=st.integers(1, 12),
    cron=st.sampled_from(["* * * * *", "*/30 * * * *", "30 2 * * *", "0 9 * * 1", "0 0 1 * *"]),
)
def test_the_newest_slots_of_a_stretch_are_those_that_looking_one_by_one_finds(
    start: datetime, length: timedelta, limit: int, cron: str
) -> None:
    timetable = Timetable(cron=cron, zone="Europe/Berlin")
    found = timetable.latest(start, start + length, limit=limit)
    assert all(start < slot <= start + length for slot in found)
    assert all(timetable.after(one) == other for one, other in pairwise(found))
    assert not found or timetable.after(found[-1]) > start + length
    assert len(found) == limit or timetable.after(start) == (found[0] if found else timetable.after(start + length))


@pytest.mark.parametrize(
    ("cron", "zone", "says"),
    [
        ("0 9 * *", "UTC", "it takes minute, hour"),
        ("* * * * * *", "UTC", "it takes minute, hour"),
        ("61 9 * * *", "UTC", "bad minute"),
        ("0 0 31 2 *", "UTC", "bad day-of-month"),
        ("0 9 * * *", "Berlin/Europe", "no time zone"),
        ("0 9 * * *", "../../etc/passwd", "no time zone"),
        ("0 9 * * *", "", "no time zone"),
    ],
)
def test_what_is_no_timetable_is_refused_with_the_reason(cron: str, zone: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Timetable(cron=cron, zone=zone)


DAILY = Timetable(cron="0 9 * * *")
MISSED = [utc(f"2026-05-0{day} 09:00") for day in range(1, 6)]


@pytest.mark.parametrize(
    ("catch_up", "at_most", "after_the_last", "fires", "left_out"),
    [
        (CatchUp.SKIP, 10, HOUR, [], 5),
        (CatchUp.SKIP, 10, timedelta(seconds=30), MISSED[-1:], 4),  # on time: it is not missed
        (CatchUp.ONCE, 10, HOUR, MISSED[-1:], 4),
        (CatchUp.ALL, 10, HOUR, MISSED, 0),
        (CatchUp.ALL, 5, HOUR, MISSED, 0),
        (CatchUp.ALL, 2, HOUR, MISSED[-2:], 1),  # at least
    ],
)
def test_missed_slots_are_made_up_for_as_the_schedule_says(
    catch_up: CatchUp, at_most: int, after_the_last: timedelta, fires: list[datetime], left_out: int
) -> None:
    what = owed(DAILY, MISSED[0], until=MISSED[-1] + after_the_last, late=MINUTE, catch_up=catch_up, at_most=at_most)
    assert (list(what.slots), what.left_out) == (fires, left_out)


def test_a_year_of_minutes_is_caught_up_without_counting_them() -> None:
    every_minute = Timetable(cron="* * * * *", zone="Europe/Berlin")
    first, now = utc("2025-05-01 00:00"), utc("2026-05-01 00:00")
    what = owed(every_minute, first, until=now, late=MINUTE, catch_up=CatchUp.ALL, at_most=3)
    assert list(what.slots) == [now - 2 * MINUTE, now - MINUTE, now]


def test_jitter_is_below_its_bound_spread_and_always_the_same() -> None:
    jitter = timedelta(minutes=10)
    found = [offset(f"tenant-{number}:digest", jitter) for number in range(1000)]
    assert found == [offset(f"tenant-{number}:digest", jitter) for number in range(1000)]
    assert all(timedelta() <= one < jitter for one in found)
    minutes = [sum(one // MINUTE == minute for one in found) for minute in range(10)]
    assert min(minutes) > 60
    assert offset("tenant-1:digest", timedelta()) == timedelta()
