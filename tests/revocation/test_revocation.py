"""Revocation: effective with its commit, tidied in chunks, and proven by a signed receipt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, ExceptionContext, select, text, update

from identity.ids import Ids
from identity.model import Scope, ScopeKind
from pipeline.db.database import Database
from pipeline.duties.reconcile import advance_revocations
from pipeline.jobs import claims as ledger_jobs
from pipeline.jobs.intents import Ended, Opened
from pipeline.revocation import declaration
from pipeline.revocation.pages import first_cancelled, page_digest
from pipeline.revocation.tables import revocation_pages, revocations
from pipeline.states import AttemptState, JobState, StepState
from pipeline.steps.openings import open_attempt
from pipeline.tables import attempts, jobs
from tests.ledger.acts import SIGNER, close, done, listening, open_, receipt_of, revoke, until_awaited
from tests.ledger.house import House, account_scope
from tests.ledger.house import intent_of as intent
from tests.ledger.revokers import quiet_revoker
from tests.ledgers import MOSTLY_SQLITE, open_ledger

LEFT = declaration.Cause(source="test", by="test", reason="left")


def test_what_is_queued_or_waits_is_cancelled_and_what_runs_stops_at_its_next_step(house: House) -> None:
    queued, running = house.job(), house.job()
    claimed = house.claim(running)
    other = house.job(tenant="globex")
    made = revoke(house, account_scope())
    revoker = quiet_revoker(house.database, SIGNER)
    assert not revoker.advance(made)  # a job of it still runs
    assert house.row(queued).state == JobState.CANCELLED
    assert house.row(running).state == JobState.STOPPING
    assert house.row(other).state == JobState.QUEUED
    open_(house, intent(house, claimed))
    assert house.row(running).state == JobState.CANCELLED
    assert revoker.advance(made)
    assert set(receipt_of(house, made)["cancelled_jobs"]) == {queued, running}


def test_a_call_that_opened_while_the_revocation_waited_was_opened_before_it_was_effective(house: House) -> None:
    asked_at = datetime.now(UTC) - timedelta(seconds=5)
    asked = intent(house, house.claim(house.job()))
    assert isinstance(open_(house, asked), Opened)
    declaring = partial(declaration.declare, scope=account_scope(), cause=LEFT, now=asked_at)
    house.database.write(partial(declaring, id="rev-waited", tenant="acme"))
    done(house, asked)
    quiet_revoker(house.database, SIGNER).advance("rev-waited")
    open_(house, intent(house, asked.job))
    assert quiet_revoker(house.database, SIGNER).advance("rev-waited")
    receipt = receipt_of(house, "rev-waited")
    (call,) = receipt["in_flight"]
    opened_at, effective_at, quiesced_at = (
        datetime.fromisoformat(at) for at in (call["opened_at"], receipt["effective_at"], receipt["quiesced_at"])
    )
    assert opened_at <= effective_at <= quiesced_at
    assert effective_at > asked_at + timedelta(seconds=4), "its own clock's, once it had its lock"


def test_jobs_accepted_after_it_are_left_alone(house: House) -> None:
    made = revoke(house, account_scope())
    later = house.job()
    assert quiet_revoker(house.database, SIGNER).advance(made)
    assert house.row(later).state == JobState.QUEUED


def test_calls_in_flight_are_waited_for_and_listed(house: House) -> None:
    job = house.claim(house.job())
    asked = intent(house, job)
    assert isinstance(open_(house, asked), Opened)
    made = revoke(house, account_scope())
    revoker = quiet_revoker(house.database, SIGNER)
    assert not revoker.advance(made)
    done(house, asked)
    # Its next step finds the stop.
    open_(house, intent(house, job, step=house.ids("step")))
    assert revoker.advance(made)
    (call,) = receipt_of(house, made)["in_flight"]
    assert (call["attempt"], call["ended"], call["outcome"]) == (asked.attempt, "ended", AttemptState.EFFECT)


def test_a_call_whose_deadline_has_passed_is_presumed_ended(house: House) -> None:
    job = house.claim(house.job())
    asked = intent(house, job)
    open_(house, asked)
    made = revoke(house, account_scope())
    past = update(attempts).values(settled_by=datetime.now(UTC) - timedelta(seconds=1))
    house.database.write(lambda c: c.execute(past).rowcount)
    revoker = quiet_revoker(house.database, SIGNER)
    revoker.advance(made)
    open_(house, intent(house, job, step=house.ids("step")))
    assert revoker.advance(made)
    (call,) = receipt_of(house, made)["in_flight"]
    assert (call["ended"], call["outcome"]) == ("presumed ended", AttemptState.UNKNOWN)


def test_a_call_that_had_ended_before_is_not_listed(house: House) -> None:
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.EFFECT, StepState.DONE, result={"id": "1"})
    made = revoke(house, account_scope())
    revoker = quiet_revoker(house.database, SIGNER)
    revoker.advance(made)
    open_(house, intent(house, asked.job, step=house.ids("step")))
    assert revoker.advance(made)
    assert receipt_of(house, made)["in_flight"] == []


def test_advancing_twice_changes_nothing_and_a_tampered_receipt_shows(house: House) -> None:
    house.job()
    made = revoke(house, account_scope())
    revoker = quiet_revoker(house.database, SIGNER)
    assert revoker.advance(made)
    first = house.database.read(partial(declaration.load, revocation=made))
    assert revoker.advance(made)
    assert house.database.read(partial(declaration.load, revocation=made)) == first
    assert not SIGNER.verifies({**first.receipt, "cancelled_jobs": []}, first.signature)


@MOSTLY_SQLITE
def test_a_large_backlog_is_cancelled_in_chunks(house: House) -> None:
    made_jobs = [house.job(text=str(n)) for n in range(300)]
    made = revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))
    assert quiet_revoker(house.database, SIGNER).advance(made)
    states = house.states()
    assert {states[job] for job in made_jobs} == {JobState.CANCELLED}
    assert house.database.read(lambda c: c.execute(select(revocations.c.cancelled_jobs)).scalar_one()) == len(made_jobs)
    receipt = receipt_of(house, made)
    assert (receipt["cancelled_count"], set(receipt["cancelled_jobs"])) == (len(made_jobs), set(made_jobs))
    assert len(receipt["pages"]) > 1
    pages = house.database.read(lambda c: c.execute(select(revocation_pages)).all())
    written = {page.sha256: page_digest({"cancelled": page.cancelled, "stopping": page.stopping}) for page in pages}
    assert [page["sha256"] for page in receipt["pages"]] == [written[page["sha256"]] for page in receipt["pages"]]
    named = [job for page in sorted(pages, key=lambda page: page.number) for job in page.cancelled]
    assert receipt["cancelled_jobs"] == named
    for some in (1, len(pages[0].cancelled) + 1, len(named) + 1):
        assert house.database.read(partial(first_cancelled, revocation=made, limit=some)) == named[:some]


@MOSTLY_SQLITE
def test_a_long_one_shows_that_it_moves_and_a_process_that_is_told_to_stop_leaves_it_between_two_chunks(
    house: House,
) -> None:
    made_jobs = [house.job(text=str(n)) for n in range(300)]
    made = revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))
    moved: list[int] = []

    def cancelled() -> int:
        return sum(state == JobState.CANCELLED for state in house.states().values())

    stopped = quiet_revoker(house.database, SIGNER, stopping=lambda: len(moved) == 1)
    assert not stopped.advance(made, moved=lambda: moved.append(cancelled()))
    assert [0 < number < len(made_jobs) for number in moved] == [True]
    assert cancelled() == moved[0]
    assert quiet_revoker(house.database, SIGNER).advance(made, moved=lambda: moved.append(cancelled()))
    assert len(moved) > 2
    assert receipt_of(house, made)["cancelled_count"] == len(made_jobs)


def test_openings_and_revocations_of_one_account_agree_about_who_came_first(house: House, ledger_url: str) -> None:
    """Racing openers and revokers: no opening of a job is numbered after a revocation that is newer than the job."""
    second: Database = open_ledger(ledger_url)
    ids = Ids()
    stop = threading.Event()
    opened: list[tuple[int, str]] = []

    def opener(database: Database) -> None:
        racer = House(database)
        while not stop.is_set():
            job = racer.claim(racer.job(text=ids("text")))
            asked = intent(racer, job)
            if isinstance(open_(racer, asked), Opened):
                opened.append((job.accepted, asked.attempt))

    threads = [threading.Thread(target=opener, args=(database,)) for database in (house.database, second) for _ in "12"]
    for thread in threads:
        thread.start()
    for _ in range(15):
        revoke(house, account_scope())
        house.connect("acme", "acme.ada")
    stop.set()
    for thread in threads:
        thread.join()
    second.close()
    numbers = house.database.read(lambda c: {row.id: row.opened for row in c.execute(select(attempts))})
    revoked = house.database.read(lambda c: c.execute(select(revocations.c.number)).scalars().all())
    assert len(revoked) == 15
    assert opened
    for accepted, attempt in opened:
        assert not [number for number in revoked if accepted < number < numbers[attempt]]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_opening_that_waited_for_a_revocation_reads_what_that_committed(house: House, ledger_url: str) -> None:
    """The snapshot of a statement that locks and reads would be older than its lock. SQLite has one writer anyway."""
    second: Database = open_ledger(ledger_url)
    asked = intent(house, house.claim(house.job()))
    outcomes: list[Any] = []
    opener = threading.Thread(target=lambda: outcomes.append(second.write(partial(open_attempt, intent=asked))))
    waiting = text("select count(*) from pg_locks where locktype = 'advisory' and not granted")

    def revoke_slowly(c: Connection) -> None:
        declaration.declare(c, account_scope(), LEFT, id="rev-slow", tenant="acme", now=datetime.now(UTC))
        opener.start()
        while opener.is_alive() and not c.execute(waiting).scalar_one():
            opener.join(0.01)

    house.database.write(revoke_slowly)
    opener.join()
    second.close()
    (outcome,) = outcomes
    assert isinstance(outcome, Ended), outcome


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_the_first_chunk_and_an_opening_that_is_refused_wait_for_each_other_in_no_ring(
    house: House, ledger_url: str
) -> None:
    """Both count the job on the revocation's row: after they have the job. SQLite has one writer anyway."""
    second: Database = open_ledger(ledger_url)
    asked = intent(house, house.claim(house.job()))
    made = revoke(house, account_scope())
    undone: list[str] = []

    def note(context: ExceptionContext) -> None:
        undone.append(str(context.original_exception))

    waiting = text("select count(*) from pg_locks where locktype = 'transactionid' and not granted")
    cancelling = threading.Thread(target=quiet_revoker(second, SIGNER).advance, args=(made,))

    def open_slowly(c: Connection) -> Any:
        c.execute(select(jobs.c.id).where(jobs.c.id == asked.job.id).with_for_update())
        if not undone:
            cancelling.start()
        while cancelling.is_alive() and not c.execute(waiting).scalar_one():
            cancelling.join(0.01)
        return open_attempt(c, asked)

    with listening(house.database.engine, "handle_error", note), listening(second.engine, "handle_error", note):
        outcome = house.database.write(open_slowly)
        cancelling.join()
    second.close()
    assert isinstance(outcome, Ended)
    assert undone == []
    assert house.row(asked.job.id).state == JobState.CANCELLED


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("move", "becomes"),
    [
        (partial(ledger_jobs.requeue, delay=timedelta(), reason="try again"), JobState.CANCELLED),
        (ledger_jobs.finish, JobState.DONE),
    ],
    ids=["given back", "finished"],
)
def test_a_job_that_moves_while_a_revocation_waits_for_it_is_taken_as_it_is_then(
    house: House, ledger_url: str, move: Callable[..., Any], becomes: JobState
) -> None:
    """To stop it would leave it to a worker who has it no longer. SQLite has one writer anyway."""
    second: Database = open_ledger(ledger_url)
    job, later = house.claim(house.job()), house.job(text="another")
    made = revoke(house, account_scope())
    revoker = quiet_revoker(second, SIGNER)
    until_awaited(house.database, partial(move, job=job), by=threading.Thread(target=revoker.advance, args=(made,)))
    second.close()
    assert house.states() == {job.id: becomes, later: JobState.CANCELLED}
    cancelled = {name for name, state in house.states().items() if state == JobState.CANCELLED}
    assert set(receipt_of(house, made)["cancelled_jobs"]) == cancelled


def test_a_call_that_was_unknown_before_it_is_still_listed(house: House) -> None:
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    made = revoke(house, account_scope())
    revoker = quiet_revoker(house.database, SIGNER)
    revoker.advance(made)
    open_(house, intent(house, asked.job, step=house.ids("step")))
    assert revoker.advance(made)
    (call,) = receipt_of(house, made)["in_flight"]
    assert (call["attempt"], call["ended"]) == (asked.attempt, "presumed ended")


def test_a_job_the_rule_refuses_before_it_is_looked_at_is_on_the_receipt(house: House) -> None:
    job = house.claim(house.job())
    made = revoke(house, account_scope())
    open_(house, intent(house, job))
    assert quiet_revoker(house.database, SIGNER).advance(made)
    assert receipt_of(house, made)["cancelled_jobs"] == [job.id]


def test_a_revocation_that_meets_an_error_does_not_hold_up_those_after_it(house: House) -> None:
    job = house.job()
    faulty, sound = revoke(house, Scope(kind=ScopeKind.AGENT, key="tester")), revoke(house, account_scope())

    def inquire(revocation: str) -> bool:
        if revocation == faulty:
            raise LookupError("no key opens it")
        return True

    revoker = quiet_revoker(house.database, SIGNER, inquire=inquire)
    with pytest.raises(ExceptionGroup) as raised:
        advance_revocations(revoker, idle=timedelta())
    assert [type(one) for one in raised.value.exceptions] == [LookupError]
    assert house.row(job).state == JobState.CANCELLED
    states = house.database.read(lambda c: {row.id: row.state for row in c.execute(select(revocations))})
    assert states == {faulty: "draining", sound: "quiesced"}
    assert revoker.unfinished(idle_seconds=5) == [], "what failed is not the first again"
