"""Due times of cron lines in a time zone, and catching up on missed slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from identity.errors import BadInput

#: A slot later than this was missed.
ON_TIME = timedelta(minutes=1)
MOST = 1000  # slots that one catch-up may fire
LONGEST_JITTER = timedelta(days=1)


class CatchUp(StrEnum):
    """The treatment of slots that passed while nothing could fire them."""

    SKIP = "skip"  # none: the next slot is the next to fire
    ONCE = "once"  # one job stands for all of them, with the newest slot
    ALL = "all"  # a job for each of the newest `at_most`, oldest first


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """A cron line of five fields in a zone of the IANA database. Raises BadInput.

    Daylight saving works as in Debian's cron(8): a fixed time that a day skips falls due when the clocks have moved,
    one that a day has twice falls due the first time; `*` in minutes or hours follows elapsed hours.
    """

    cron: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if len(self.cron.split()) != 5:
            raise BadInput(f"{self.cron!r} is no cron line: it takes minute, hour, day of month, month, day of week")
        try:
            self.after(datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as fault:
            raise BadInput(f"{self.cron!r} is no cron line: {str(fault).lower()}") from fault
        except (ZoneInfoNotFoundError, ValueError, OSError) as fault:
            raise BadInput(f"{self.zone!r} is no time zone: use a name like Europe/Berlin") from fault

    def after(self, moment: datetime) -> datetime:
        """Return the first slot later than *moment*. Raises BadInput if there is none in fifty years."""
        try:
            return next(self._since(moment))
        except StopIteration:
            raise BadInput(f"{self.cron!r} never falls due") from None

    def latest(self, after: datetime, until: datetime, *, limit: int) -> list[datetime]:
        """Return the newest *limit* slots later than *after* and not later than *until*, oldest first."""
        window = timedelta(hours=1)
        while True:
            start = max(after, until - window)
            found: deque[datetime] = deque(maxlen=limit)
            for slot in self._since(start):
                if slot > until:
                    break
                found.append(slot)
            if start == after or len(found) == limit:
                return list(found)
            window *= 4

    def _since(self, moment: datetime) -> Iterator[datetime]:
        # From a start inside a repeated hour, CronSim yields times of the hour's first pass, which are over.
        for local in CronSim(self.cron, moment.astimezone(ZoneInfo(self.zone))):
            slot: datetime = local.astimezone(UTC)
            if slot > moment:
                yield slot


@dataclass(frozen=True, kw_only=True)
class Daily:
    """A schedule in code: a cron line in a time zone, read by Celery Beat's scheduler. Raises TypeError.

    *catch_up*: the treatment of slots that passed while no beat ran. *at_most*: how many of them `ALL` fires. *jitter*
    spreads the tenants' jobs: each fires later than its slots by a constant offset below *jitter*.
    """

    cron: str
    zone: str = "UTC"
    catch_up: CatchUp = CatchUp.ONCE
    at_most: int = 10
    jitter: timedelta = timedelta()

    def __post_init__(self) -> None:
        try:
            Timetable(cron=self.cron, zone=self.zone)
            check_jitter(self.jitter)
        except BadInput as fault:
            raise TypeError(f"a workflow's schedule cannot be kept: {fault}") from fault
        if not 1 <= self.at_most <= MOST:
            raise TypeError(f"a catch-up fires 1 to {MOST} slots")


@dataclass(frozen=True, kw_only=True)
class Owed:
    """The slots that a due schedule fires, and how many it leaves out."""

    slots: tuple[datetime, ...]
    left_out: int


def owed(
    timetable: Timetable, first: datetime, *, until: datetime, late: timedelta, catch_up: CatchUp, at_most: int
) -> Owed:
    """Choose the slots to fire from *first* to *until*. *late*: how late the newest may be under SKIP."""
    found = timetable.latest(first, until, limit=at_most + 1)
    if len(found) <= at_most:
        found.insert(0, first)
    match catch_up:
        case CatchUp.SKIP:
            chosen = [slot for slot in found[-1:] if until - slot <= late]
        case CatchUp.ONCE:
            chosen = found[-1:]
        case CatchUp.ALL:
            chosen = found[-at_most:]
    return Owed(slots=tuple(chosen), left_out=len(found) - len(chosen))


def check_jitter(jitter: timedelta) -> None:
    """Raise BadInput if the jitter is negative or longer than a day."""
    if jitter < timedelta():
        raise BadInput("a jitter cannot be negative: nothing fires before its slot")
    if jitter > LONGEST_JITTER:
        raise BadInput("a jitter is a day at most")


def offset(schedule: str, jitter: timedelta) -> timedelta:
    """Return the delay of a schedule's firing after its slots: constant, below *jitter*, spread over schedules."""
    seconds = int(jitter.total_seconds())
    if seconds < 1:
        return timedelta()
    return timedelta(seconds=int.from_bytes(sha256(schedule.encode()).digest()[:8]) % seconds)
