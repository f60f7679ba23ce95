"""What the child processes run: the real application over a runtime that does what a job's id says and writes it down.

`ok-…` ends at once, `brief-…` soon, `held-<gate>-…` when the file of its gate is there, `hang-…` never; `exit-…`,
`base-…` and `error-…` raise.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from identity.errors import Misconfigured
from identity.model import AccessPattern
from pipeline.broker.celery import BrokerSettings, make_celery
from pipeline.broker.ring import CeleryRing
from pipeline.broker.watchdog import TaskLimits
from pipeline.exposition import serve
from pipeline.model import Bell

DIRECTORY = Path(os.environ["RIG_DIRECTORY"])


class Unmarked(BaseException):
    """Neither an Exception nor one of Python's own."""


def write(line: str) -> None:
    descriptor = os.open(DIRECTORY / "handled", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


class Work:
    """Stands in for the worker and the revoker of the ledger."""

    active_jobs: Mapping[int, str] = {}

    def handle(self, job_id: str, *, lapses: int | None) -> None:
        write(f"began {job_id}")
        match job_id.split("-"):
            case ["held", gate, *_]:
                until = time.monotonic() + 60
                while not (DIRECTORY / f"gate-{gate}").exists() and time.monotonic() < until:
                    time.sleep(0.01)
            case ["brief", *_]:
                time.sleep(0.05)
            case ["exit", *_]:
                raise SystemExit(3)
            case ["base", *_]:
                raise Unmarked
            case ["error", *_]:
                raise ValueError(job_id)
            case ["hang", *_]:
                threading.Event().wait()
        write(f"ended {job_id}")

    def answer(self, revocation_id: str, *, moved: Callable[[], None]) -> None:
        match revocation_id.split("-"):
            case ["long", parts]:
                for _ in range(int(parts)):
                    time.sleep(0.05)
                    moved()
        write(f"advanced {revocation_id}")

    def spend(self, overdue: Collection[str]) -> None:
        write(f"spent {' '.join(overdue)}")

    def hand_back(self, *, besides: Collection[str]) -> None:
        write(f"handed back all but {' '.join(besides)}")


class Slots:
    """A schedule of one slot a half second, in SQLite, with the ledger's key; a late beat catches up."""

    def fire_due(self, now: datetime, ring: Callable[[Sequence[Bell]], object]) -> list[Bell]:
        due = int(now.timestamp() * 2)
        with sqlite3.connect(DIRECTORY / "slots.db", timeout=60) as database:
            database.execute("create table if not exists slots (slot integer primary key, beat integer)")
            (last,) = database.execute("select max(slot) from slots").fetchone()
            insert = "insert or ignore into slots values (?, ?)"
            slots = range(due if last is None else last + 1, due + 1)
            fired = [slot for slot in slots if database.execute(insert, (slot, os.getpid())).rowcount]
        database.close()
        bells = [Bell(job=f"ok-{slot}", tenant="t1", pattern=AccessPattern.SERVICE) for slot in fired]
        ring(bells)
        return bells


class TestRuntime:
    """Opened in worker_init."""

    __test__ = False

    def __init__(self) -> None:
        if "RIG_UNOPENABLE" in os.environ:
            raise {"broken": OSError("no ledger"), "misconfigured": Misconfigured("set ASWHOM_LEDGER")}[
                os.environ["RIG_UNOPENABLE"]
            ]
        self.worker = self.revoker = Work()
        self.schedules = Slots()
        write("opened")

    @cached_property
    def ring(self) -> CeleryRing:
        return CeleryRing(app)

    def heartbeat(self, duty: str, error: str | None) -> None:
        with (DIRECTORY / "heartbeats").open("a") as heartbeats:
            heartbeats.write(f"{duty} {error} {os.getpid()}\n")

    def in_commit(self) -> Mapping[int, float]:
        return {}

    def wind_down(self) -> None:
        write("winds down")

    def close(self) -> None:
        write("closed")


logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
app = make_celery(
    BrokerSettings(
        url=os.environ["RIG_BROKER"],
        beat_interval=timedelta(seconds=0.2),
        transport_options=json.loads(os.environ.get("RIG_OPTIONS", "{}")),
    ),
    TestRuntime,
    limits=TaskLimits(
        task=timedelta(seconds=float(os.environ.get("RIG_LIMIT", "60"))),
        grace=timedelta(seconds=float(os.environ.get("RIG_GRACE", "10"))),
    ),
)
if "RIG_HEARD" in os.environ:  # whether the worker listened within six seconds
    serve(int(os.environ["RIG_HEARD"]), is_well=lambda: app.hearing.is_well(timedelta(seconds=6)))
# Negative controls: Celery's own ways instead of ours.
app.conf.update(json.loads(os.environ.get("RIG_CONF", "{}")))
if "RIG_ACK" in os.environ:
    for queue in app.conf.task_queues:
        queue.no_ack = False
    for task in app.tasks.values():
        task.Request = "celery.worker.request:Request"
