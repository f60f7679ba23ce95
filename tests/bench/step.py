"""step: opening and closing a step, beside two bare durable commits through the same seam."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import Column, Connection, MetaData, String, Table

from pipeline.jobs.intents import Opened
from pipeline.states import AttemptState, StepState
from pipeline.steps import openings
from pipeline.steps.closings import Closing, close_attempt
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger, at_once

SECONDS = 1.5
THREADS = (1, 32)
ROWS = Table("bench_rows", MetaData(), Column("id", String(64), primary_key=True))
_INSERT = ROWS.insert()

Pair = Callable[[], None]


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("step: open and close a step, beside two one-row commits of the same database")
    with ground.ledgers() as ledgers:
        for ledger in ledgers.values():
            ledger.database.write(ROWS.create)
        for _ in range(rounds):
            for ledger, threads in itertools.product(ledgers.values(), THREADS):
                one = f"{ledger.kind}, {threads} thread{'s' if threads > 1 else ''}"
                bare = f"{one}: two bare commits"
                for name, make, peer in ((bare, bare_commits, None), (f"{one}: open + close", steps, bare)):
                    pairs = [make(ledger) for _ in range(threads)]
                    worked = time.process_time()
                    took = run(pairs)
                    worked = time.process_time() - worked
                    sheet.add(name, len(took) / SECONDS, "/s", peer=peer)
                    sheet.add(f"{name}, p50", percentile(took, 0.5) * 1000, "ms")
                    sheet.add(f"{name}, p99", percentile(took, 0.99) * 1000, "ms")
                    sheet.add(f"{name}, processor", worked / len(took) * 1000, "ms")
    return sheet


def run(pairs: list[Pair]) -> list[float]:
    """Do each of *pairs* over and over in a thread of its own; how long each took."""
    took: list[float] = []

    def work(number: int) -> None:
        pair = pairs[number]
        pair()  # compiled, connected
        until = time.perf_counter() + SECONDS
        while (began := time.perf_counter()) < until:
            pair()
            took.append(time.perf_counter() - began)

    at_once(len(pairs), work)
    return took


def steps(ledger: Ledger) -> Pair:
    """Opens and closes one step after another of a claimed job."""
    job = ledger.claimed()
    positions = itertools.count(1)

    def pair() -> None:
        intent = ledger.intent(job, next(positions))
        opened = ledger.database.write(partial(openings.open_attempt, intent=intent))
        assert isinstance(opened, Opened), opened
        closing = Closing(
            attempt=intent.attempt, state=AttemptState.EFFECT, step_state=StepState.DONE, result={"id": "1"}, status=200
        )
        ledger.database.write(partial(close_attempt, intent=intent, closing=closing))

    return pair


def bare_commits(ledger: Ledger) -> Pair:
    """Commits two rows, one after the other."""

    def pair() -> None:
        for _ in range(2):
            ledger.database.write(partial(insert_row, row=ledger.house.ids("row")))

    return pair


def insert_row(c: Connection, *, row: str) -> None:
    """What a bare commit commits."""
    c.execute(_INSERT, {"id": row})
