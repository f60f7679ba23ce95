"""Parts of the tests of outages: an upstream that is away, and workers whose clocks a test moves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, Connection, select, type_coerce, update

from identity.sql.columns import Instant
from pipeline.duties import reconcile
from pipeline.execution.services import StepSettings
from pipeline.ledger.clock import ledger_now
from pipeline.run import Run
from pipeline.states import JobState, Wait
from pipeline.tables import attempts, jobs
from pipeline.throttle.breaker import Breakers
from pipeline.throttle.in_flight import InFlight
from tests.identity.providers import Reply, reply
from tests.ledger.house import Say
from tests.ledger.workers import Workers

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TICK = timedelta(seconds=10)


class Passing:
    """The workers of one process, and a clock that a test moves: the ledger's dates, and what breakers wait by."""

    def __init__(self, workers: Workers) -> None:
        self.workers, self.house = workers, workers.house
        self.now, self.settings = 1_000.0, StepSettings()
        workers.shared = {"breakers": Breakers(None, monotonic=lambda: self.now), "in_flight": self.flights(16)}

    def flights(self, most: int) -> InFlight:
        return InFlight(most, monotonic=lambda: self.now)

    def passes(self, time: timedelta) -> None:
        self.now += time.total_seconds()
        by = time // timedelta(microseconds=1)

        def earlier(c: Connection) -> None:
            for column in (jobs.c.due_at, jobs.c.expires_at, attempts.c.opened_at, attempts.c.settled_by):
                at = type_coerce(type_coerce(column, BigInteger) - by, Instant)
                c.execute(update(column.table).where(column.is_not(None)).values({column.name: at}))

        self.house.database.write(earlier)

    def work(self) -> int:
        """Every job that is due runs, the longest due first; how many did."""
        reconcile.settle_attempts(self.house.database)
        reconcile.wake_due(self.house.database)
        now = self.house.database.read(ledger_now)
        due = select(jobs.c.id).where(jobs.c.state == JobState.QUEUED, jobs.c.due_at <= now).order_by(jobs.c.due_at)
        found = self.house.database.read(lambda c: list(c.execute(due).scalars()))
        for job in found:
            self.workers.work(job, self.settings)
        return len(found)

    def states(self) -> set[str]:
        return set(self.house.states().values())


def saying(action: type[Say], run: Run[Any], event: Any) -> None:
    run.do(action(text=event.text), as_=run.user)


class Upstream:
    """What the pretend upstream does: it is away until it is back, and counts what it was asked and what it did."""

    def __init__(self, workers: Workers, status: int | None) -> None:
        self.status: int | None = status  # None: the connection breaks, and whether it was done nobody knows
        self.away = True
        self.asked = 0
        self.did: list[str] = []
        self.provider = workers.provider
        workers.provider.call = self.call  # type: ignore[assignment]

    def call(self, token: str) -> Reply | None:
        if not self.away:
            self.did.append(self.provider.bodies[-1].decode())
            return reply({"id": "7"})
        self.asked += 1
        return None if self.status is None else reply({}, self.status)


def until_it_waits(passing: Passing, job: str) -> None:
    while passing.house.row(job).wait != Wait.UPSTREAM:
        passing.work()
        passing.passes(TICK)
