"""Actions whose effect can be searched for, and what becomes of a try: its answer, its time, its commit."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, cast

from sqlalchemy import Connection, select, update

from pipeline.action import Call, Facts, Recovery, Request, Response
from pipeline.db.database import Database
from pipeline.run import Run
from pipeline.states import JobState
from pipeline.tables import attempts, jobs, steps
from tests.identity.providers import reply
from tests.ledger.house import Said, Say
from tests.ledger.workers import Workers
from tests.properties.held import Ledger


class Sought(Say):
    """A search never finds it: what it is answered is somebody's profile."""

    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.PROBE)

    def probe(self, call: Call) -> Request:
        return Request(method="GET", path="/said")

    def found(self, response: Response, call: Call) -> Said | None:
        return None


class Named(Sought):
    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.CLIENT_ID)


class Found(Named):
    """A search finds it."""

    def found(self, response: Response, call: Call) -> Said | None:
        return Said(id="7")


def answers(workers: Workers, status: int, **body: str) -> None:
    workers.provider.call = lambda token: reply(body, status)


def time_passes(workers: Workers, passed: timedelta = timedelta(minutes=1)) -> None:
    """By the dates of the attempts and steps; jobs that are queued are due."""

    def move(c: Connection) -> None:
        for row in c.execute(select(attempts)).all():
            earlier = {"opened_at": row.opened_at - passed, "settled_by": row.settled_by - passed}
            c.execute(update(attempts).where(attempts.c.id == row.id).values(earlier))
        for row in c.execute(select(steps)).all():
            c.execute(update(steps).where(steps.c.id == row.id).values(opened_at=row.opened_at - passed))
        for job in c.execute(select(jobs).where(jobs.c.expires_at.is_not(None))).all():
            c.execute(update(jobs).where(jobs.c.id == job.id).values(expires_at=job.expires_at - passed))
        c.execute(update(jobs).where(jobs.c.state == JobState.QUEUED).values(due_at=jobs.c.created_at))

    workers.house.database.write(move)


def says(action: type[Say], run: Run[Any], event: Any) -> None:
    run.do(action(text="hello"), as_=run.user)


def fallible(workers: Workers) -> Ledger:
    """The workers' ledger, of whose commits one may not be confirmed."""
    ledger = Ledger(workers.house.database, lambda: None)
    workers.house.database = cast("Database", ledger)
    return ledger
