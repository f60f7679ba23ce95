"""revoke: how long a revocation takes to be effective while steps open at full speed, and to cancel what is queued."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, update

from identity.model import Scope, ScopeKind
from identity.sequence import next_number
from identity.signing import Signer
from pipeline import revocation
from pipeline.ledger import openings
from pipeline.ledger.closings import Closing, close_attempt
from pipeline.ledger.intents import Opened
from pipeline.revoker import Revoker
from pipeline.states import AttemptState, JobState, StepState
from pipeline.tables import jobs
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger, at_once
from tests.bench.queued import queue
from tests.ledger.house import account_scope

T = TypeVar("T")

OPENERS = 32
REVOCATIONS = 30  # a round
BETWEEN = 0.1  # seconds of undisturbed openings before each
QUEUED = 10_000


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet(
        f"revoke: commit of an account's revocation against {OPENERS} openers; cancel of {QUEUED:,} queued jobs"
    )
    with ground.ledgers() as ledgers:
        for _ in range(rounds):
            for ledger in ledgers.values():
                effective(ledger, sheet, name=ledger.kind)
            for ledger in ledgers.values():
                cancel(ledger, sheet)
    sheet.notes.append(f"{REVOCATIONS} revocations a round; with so few, a round's p99 is its greatest.")
    return sheet


def effective(ledger: Ledger, sheet: Sheet, *, name: str) -> None:
    """Revoke, consent again, let the openers go on, and so on; *name* stands before each figure."""
    openers = [Opener(ledger) for _ in range(OPENERS)]
    took: list[float] = []
    undisturbed = 0.0

    def work(number: int) -> None:
        nonlocal undisturbed
        if number < OPENERS:
            openers[number].run()
            return
        try:
            for _ in range(REVOCATIONS):
                time.sleep(BETWEEN)
                undisturbed += BETWEEN
                began = time.perf_counter()
                declare(ledger, account_scope(), tenant="acme")
                took.append(time.perf_counter() - began)
                ledger.house.connect("acme", "acme.ada")
                accepted = ledger.write(partial(_accept_anew, ids=[opener.job.id for opener in openers]))
                for opener in openers:
                    opener.go_on(accepted)
        finally:
            for opener in openers:
                opener.stop()

    at_once(OPENERS + 1, work)
    opened = [seconds for opener in openers for seconds in opener.took]
    for share, of in (("p50", 0.5), ("p99", 0.99), ("max", 1)):
        sheet.add(f"{name}: revocation effective, {share}", percentile(took, of) * 1000, "ms")
    for share, of in (("p50", 0.5), ("p99", 0.99)):
        sheet.add(f"{name}: an opening meanwhile, {share}", percentile(opened, of) * 1000, "ms")
    sheet.add(f"{name}: openings meanwhile", len(opened) / undisturbed, "/s")


class Opener:
    """Opens and closes one step after another as ada; refused, it waits until it may go on."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stopped = False
        self.job = ledger.claimed()
        self.took: list[float] = []  # seconds each opening took

    def run(self) -> None:
        for position in itertools.count(1):
            if self._stopped:
                return
            intent = self._ledger.intent(self.job, position)
            began = time.perf_counter()
            outcome = self._ledger.write(partial(openings.open_attempt, intent=intent))
            if not isinstance(outcome, Opened):
                while intent.job is self.job and not self._stopped:
                    time.sleep(0.001)
                continue
            self.took.append(time.perf_counter() - began)
            closing = Closing(attempt=intent.attempt, state=AttemptState.EFFECT, step_state=StepState.DONE, result={})
            self._ledger.write(partial(close_attempt, intent=intent, closing=closing))

    def go_on(self, accepted: int) -> None:
        self.job = replace(self.job, accepted=accepted)

    def stop(self) -> None:
        self._stopped = True


def _accept_anew(c: Connection, *, ids: list[str]) -> int:
    """Put the openers' jobs back into their hands, newer than the revocation: quicker than new ones."""
    number = next_number(c)
    c.execute(update(jobs).where(jobs.c.id.in_(ids)).values(accepted=number, state=JobState.RUNNING, finished_at=None))
    return number


def cancel(ledger: Ledger, sheet: Sheet) -> None:
    """Queue the jobs of one tenant, revoke it, and advance to the receipt."""
    queue(ledger, {"globex": QUEUED})
    made = declare(ledger, Scope(kind=ScopeKind.TENANT, key="globex"), tenant="globex")
    timed = _Timed(ledger)
    began = time.perf_counter()
    done = Revoker(timed, Signer.from_seed(b"s" * 32)).advance(made)
    lasted = time.perf_counter() - began
    row = ledger.database.read(lambda c: revocation.load(c, made))
    assert done, "nothing was in flight"
    assert row.cancelled_jobs == QUEUED, row.cancelled_jobs
    *chunks, receipt = timed.took
    sheet.add(f"{ledger.kind}: {QUEUED:,} queued jobs cancelled, in all", lasted * 1000, "ms")
    sheet.add(f"{ledger.kind}: the longest chunk of them", max(chunks) * 1000, "ms")
    sheet.add(f"{ledger.kind}: the receipt", receipt * 1000, "ms")


class _Timed:
    """A store that notes how long each write took."""

    def __init__(self, ledger: Ledger) -> None:
        self._database = ledger.database
        self.took: list[float] = []

    def write(self, fn: Callable[[Connection], T]) -> T:
        began = time.perf_counter()
        try:
            return self._database.write(fn)
        finally:
            self.took.append(time.perf_counter() - began)

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._database.read(fn)


def declare(ledger: Ledger, scope: Scope, *, tenant: str) -> str:
    """Revoke *scope*; the revocation's id."""
    made = ledger.house.ids("rev")
    act = partial(revocation.declare, id=made, scope=scope, tenant=tenant, source="bench", by="bench", reason="bench")
    ledger.write(partial(act, now=datetime.now(UTC)))
    return made
