"""revoke: how long a revocation takes to be effective while steps open at full speed, and to cancel what is queued."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, update

from deploy.process import spare_what_is_loaded
from identity.keys.signing import Signer
from identity.model import Scope, ScopeKind
from identity.sql.sequence import next_number
from pipeline.deliveries.intake import Intake
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.intents import Opened
from pipeline.model import DeliveryOutcome
from pipeline.revocation import declaration
from pipeline.states import AttemptState, JobState, StepState
from pipeline.steps import openings
from pipeline.steps.closings import Closing, close_attempt
from pipeline.tables import jobs
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger, as_a_worker_does, at_once, persistently
from tests.bench.queued import queue
from tests.ledger.crowd import crowd, uninstalled
from tests.ledger.house import House, account_scope, intent_of
from tests.ledger.revokers import quiet_revoker

T = TypeVar("T")

OPENERS = 32  # threads
PROCESSES = 2  # of them
PATIENCE = 60.0  # seconds
REVOCATIONS = 30  # a round
BETWEEN = 0.1  # seconds of undisturbed openings before each
QUEUED = 10_000
CROWD = 1_000  # accounts of a workspace


def measure(ground: Ground, rounds: int) -> Sheet:
    against = f"{OPENERS} openers in {PROCESSES} processes"
    sheet = Sheet(f"revoke: commit of an account's revocation against {against}; cancel of {QUEUED:,} queued jobs")
    with ground.ledgers() as ledgers:
        for _ in range(rounds):
            for ledger in ledgers.values():
                effective(ledger, sheet, name=ledger.kind)
            for ledger in ledgers.values():
                cancel(ledger, sheet)
    for _ in range(rounds):
        with ground.ledgers() as ledgers:  # fresh: a crowd is connected once
            for ledger in ledgers.values():
                end_workspace(ledger, sheet)
    sheet.notes.append(f"{REVOCATIONS} revocations a round; with so few, a round's p99 is its greatest.")
    return sheet


def effective(ledger: Ledger, sheet: Sheet, *, name: str) -> None:
    """Revoke, consent again, let the openers go on, and so on; *name* stands before each figure."""
    with opening(ledger) as openers:
        took: list[float] = []
        for _ in range(REVOCATIONS):
            time.sleep(BETWEEN)
            began = time.perf_counter()
            declare(ledger, account_scope(), tenant="acme")
            took.append(time.perf_counter() - began)
            ledger.house.connect("acme", "acme.ada")
            openers.go_on(ledger.write(partial(_accept_anew, ids=openers.jobs)))
        opened = openers.stop()
    for share, of in (("p50", 0.5), ("p99", 0.99), ("max", 1)):
        sheet.add(f"{name}: revocation effective, {share}", percentile(took, of) * 1000, "ms")
    for share, of in (("p50", 0.5), ("p99", 0.99)):
        sheet.add(f"{name}: an opening meanwhile, {share}", percentile(opened, of) * 1000, "ms")
    sheet.add(f"{name}: openings meanwhile", len(opened) / (REVOCATIONS * BETWEEN), "/s")


class Openers:
    """Threads in processes of their own, as workers are: whoever revokes shares the ledger with them, and no more."""

    def __init__(self, ledger: Ledger) -> None:
        spawn = multiprocessing.get_context("spawn")
        claimed = [ledger.claimed() for _ in range(OPENERS)]
        self.jobs = [job.id for job in claimed]
        self._accepted, self._stopped, self._took = spawn.Value("q", 0), spawn.Event(), spawn.Queue()
        self._gate = spawn.Barrier(PROCESSES + 1, timeout=PATIENCE)
        self._running = [
            spawn.Process(
                target=_open_steps,
                args=(ledger.url, claimed[number::PROCESSES], self._gate, self._accepted, self._stopped, self._took),
            )
            for number in range(PROCESSES)
        ]
        for process in self._running:
            process.start()
        self._gate.wait()

    def go_on(self, accepted: int) -> None:
        """Their jobs are theirs again, as accepted by that number of the ledger."""
        self._accepted.value = accepted

    def stop(self) -> list[float]:
        """Let them end; how many seconds each of their openings took."""
        self._stopped.set()
        return [seconds for _ in self._running for seconds in self._took.get(timeout=PATIENCE)]

    def end(self) -> None:
        """Also where something failed."""
        self._stopped.set()
        for process in self._running:
            process.join(PATIENCE)


@contextmanager
def opening(ledger: Ledger) -> Iterator[Openers]:
    """Openers at work."""
    openers = Openers(ledger)
    try:
        yield openers
    finally:
        openers.end()


def _open_steps(url: str, claimed: list[ClaimedJob], gate: Any, accepted: Any, stopped: Any, results: Any) -> None:
    """One process of openers, which begins as a worker does."""
    database = as_a_worker_does(url)
    openers = [Opener(House(database), job, accepted, stopped) for job in claimed]
    spare_what_is_loaded()
    gate.wait()
    at_once(len(openers), lambda number: openers[number].run())
    results.put([seconds for opener in openers for seconds in opener.took])
    database.close()


class Opener:
    """Opens and closes one step after another as ada; refused, it waits until it may go on."""

    def __init__(self, house: House, job: ClaimedJob, accepted: Any, stopped: Any) -> None:
        self._house = house
        self._job = job
        self._accepted = accepted
        self._stopped = stopped
        self.took: list[float] = []  # seconds each opening took

    def run(self) -> None:
        database = self._house.database
        for position in itertools.count(1):
            if self._stopped.is_set():
                return
            intent = intent_of(self._house, self._job, position=position, occurrence=position)
            began = time.perf_counter()
            outcome = persistently(database, partial(openings.open_attempt, intent=intent))
            if not isinstance(outcome, Opened):
                while self._accepted.value <= self._job.accepted and not self._stopped.is_set():
                    time.sleep(0.001)
                self._job = replace(self._job, accepted=max(self._job.accepted, self._accepted.value))
                continue
            self.took.append(time.perf_counter() - began)
            closing = Closing(attempt=intent.attempt, state=AttemptState.EFFECT, step_state=StepState.DONE, result={})
            persistently(database, partial(close_attempt, intent=intent, closing=closing))


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
    done = quiet_revoker(timed, Signer.from_seed(b"s" * 32)).advance(made)
    lasted = time.perf_counter() - began
    row = ledger.database.read(lambda c: declaration.load(c, made))
    assert done, "nothing was in flight"
    assert row.cancelled_jobs == QUEUED, row.cancelled_jobs
    *chunks, receipt = timed.took
    sheet.add(f"{ledger.kind}: {QUEUED:,} queued jobs cancelled, in all", lasted * 1000, "ms")
    sheet.add(f"{ledger.kind}: the longest chunk of them", max(chunks) * 1000, "ms")
    sheet.add(f"{ledger.kind}: the receipt", receipt * 1000, "ms")


def end_workspace(ledger: Ledger, sheet: Sheet) -> None:
    """Accept a workspace's signal that everybody's grants have ended, with nobody else at work."""
    crowd(ledger.house, CROWD)
    house = ledger.house
    intake = Intake(house.database, house.vault, house.ids, clock=_now, monotonic=lambda: 0.0)  # no 2 s for the request
    began = time.perf_counter()
    accepted = intake.accept(uninstalled(house), (), outcome=DeliveryOutcome.IGNORED, reason="")
    lasted = time.perf_counter() - began
    ended = len(set(accepted.revocations))
    assert ended >= CROWD, ended
    sheet.add(f"{ledger.kind}: a workspace ended by its signal, accounts", ended / lasted, "/s")


def _now() -> datetime:
    return datetime.now(UTC)


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
    cause = declaration.Cause(source="bench", by="bench", reason="bench")
    act = partial(declaration.declare, scope=scope, cause=cause, id=made, tenant=tenant, now=datetime.now(UTC))
    ledger.database.write(act, ahead=True)
    return made
