"""What comes late: answers that drip, workers and housekeeping that stood still."""

from __future__ import annotations

import fcntl
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import NullPool, Row, create_engine, select, text

from deploy.trial.passing import time_passes
from identity.audit.tables import audit
from pipeline.states import AttemptState, JobState
from pipeline.tables import attempts, deliveries, jobs, steps
from tests.faults.books import balance, requests, written_about
from tests.faults.gated import start_gated
from tests.faults.time_passes import lapse_bells, lapse_claims
from tests.servers.postgres import Postgres
from tests.system.conftest import Start
from tests.system.rig import System
from tests.system.senders import slash_command

CALL = 8.0  # seconds, really waited for: answers that drip for longer are late


@pytest.fixture
def settings() -> Mapping[str, str]:
    return {"ASWHOM_CALL_DEADLINE": str(CALL)}


def test_an_answer_that_drips_is_cut_at_the_deadline_and_its_effect_is_found(sqlite_system: System) -> None:
    """Each piece comes well within any timeout of a single read; the whole would take 24 seconds."""
    system = sqlite_system
    system.connect("acme", "ada")
    system.order("linear", "faults", mode="drip_body", endpoint="issueCreate", seconds=24)
    system.order("github", "faults", mode="drip_headers", endpoint="create_comment", seconds=24)
    pull = f"acme/shop#{system.pull('acme/shop', 'ada', 'bug')['number']}"
    system.start("worker")
    calls = attempts.c.purpose == "call"
    adopted = calls & (attempts.c.state == AttemptState.ADOPTED)
    unknown = calls & (attempts.c.state == AttemptState.UNKNOWN)

    def is_looked_for_later(n: int) -> bool:
        queued = system.count(jobs, jobs.c.state == JobState.QUEUED)
        return bool(queued and system.count(attempts, adopted) == n and system.count(attempts, unknown))

    for n in range(2):
        system.wait(partial(is_looked_for_later, n), f"call {n + 1} that is cut")
        system.runtime.database.write(time_passes)
    (job,) = system.settled()
    assert job.state == JobState.DONE
    assert system.count(attempts, adopted) == 2
    probes = (
        select(steps.c.action).join(attempts, attempts.c.step_id == steps.c.id).where(attempts.c.purpose == "probe")
    )
    assert sorted(system.rows(probes)) == [("github.Comment",), ("linear.CreateIssue",)]
    balance(system)
    assert written_about(system, [pull]) == {"comments": Counter([pull]), "messages": Counter([pull])}


@pytest.mark.slow
def test_the_deadline_of_a_call_is_total(sqlite_system: System) -> None:
    """A read may be asked again, so what its attempt took is on record when it closes."""
    system = sqlite_system
    system.order("github", "faults", mode="drip_headers", endpoint="get_pull", seconds=40)
    system.pull("acme/shop", "ada")
    system.start("worker")
    system.settled()
    first = select(attempts).order_by(attempts.c.opened).limit(1)
    (cut,) = system.rows(first)
    assert (cut.state, cut.purpose) == (AttemptState.NO_EFFECT, "call")
    took = (cut.closed_at - cut.opened_at).total_seconds()
    assert CALL * 0.9 <= took < CALL * 2.5
    assert {job.state for job in system.jobs()} == {JobState.DONE}


def overtake(system: System, point: str) -> Row[Any]:
    """A worker stopped at *point* of its second call until another has done its job; its attempt."""
    system.connect("acme", "ada")
    pull = f"acme/shop#{system.pull('acme/shop', 'ada', 'bug')['number']}"
    # Longer than its first call takes, or that is made again and is the second. Whoever looks waits for both limits.
    gate = start_gated(
        system, point, passes=2, ASWHOM_SEND_WITHIN="5", ASWHOM_WORKER_HOLD="5", ASWHOM_CALL_DEADLINE="4"
    )
    system.processes["worker"].send_signal(signal.SIGSTOP)
    try:
        (stopped,) = system.rows(select(attempts).where(attempts.c.state == AttemptState.OPEN))
        assert stopped.principal_id == "acme.ada"
        system.start("worker-2")
        lapse_claims(system)

        def done() -> bool:
            lapse_bells(system)  # the stopped worker's connection may have taken the bell
            return bool(system.count(jobs, jobs.c.state == JobState.DONE))

        system.wait(done, "another worker to finish the job")
    finally:
        gate.open()
        system.processes["worker"].send_signal(signal.SIGCONT)
    late = audit.c.kind == "attempt.late"
    system.wait(lambda: system.count(audit, late), "what the stopped worker has to say, on record")
    (job,) = system.settled()
    assert job.state == JobState.DONE
    assert job.fence >= 2
    balance(system)
    assert written_about(system, [pull]) == {"comments": Counter([pull]), "messages": Counter([pull])}
    assert len(system.effects("linear")) == 1
    (stopped,) = system.rows(select(attempts).where(attempts.c.id == stopped.id))
    return stopped


@pytest.mark.slow
def test_the_answer_of_a_worker_that_stood_still_counts_and_nothing_is_done_twice(sqlite_system: System) -> None:
    """It has the answer, and the ledger does not: what it did is found, and what it says later changes nothing."""
    system = sqlite_system
    stopped = overtake(system, "after_call")
    assert stopped.state == AttemptState.ADOPTED
    assert [entry["attempt"] for entry in system.effects("linear")] == [stopped.id]


def test_a_worker_that_stood_still_before_its_call_does_not_make_it(sqlite_system: System) -> None:
    """Its intent is committed and nothing was sent: another worker looks, finds nothing, and sends."""
    system = sqlite_system
    stopped = overtake(system, "before_call")
    assert stopped.state == AttemptState.NO_EFFECT
    assert stopped.id not in {entry["attempt"] for entry in requests(system)}


def without_housekeeping(system: System, *, seconds: float) -> None:
    """There is none; what comes in meanwhile is accepted, run and finished by the others alone."""
    system.connect("acme", "ada")
    system.start("worker")
    system.kill("housekeeping")
    until, opened = time.monotonic() + seconds, 0
    while opened < 3 or time.monotonic() < until:
        assert system.pull("acme/shop", "ada", "bug")["statuses"] == [202]
        opened += 1
        system.wait(lambda: all(job.state == JobState.DONE for job in system.jobs()), "a fresh delivery's end")
    assert system.count(jobs) == opened
    balance(system)


def test_fresh_deliveries_end_without_housekeeping(sqlite_system: System) -> None:
    without_housekeeping(sqlite_system, seconds=5)


@pytest.mark.slow
def test_fresh_deliveries_end_without_housekeeping_for_half_a_minute(system: System) -> None:
    without_housekeeping(system, seconds=30)


def test_a_process_that_stands_still_in_its_commit_costs_a_503_and_no_delivery(start_system: Start) -> None:
    """On SQLite whoever holds the gate keeps the others out, stopped or not; they say so, and come back."""
    system = start_system(ASWHOM_TURN_TIMEOUT="0.5")
    system.start("web", "worker", "housekeeping")
    with (system.directory / "ledger.sqlite.gate").open("r+") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        held = system.pull("acme/shop", "ada", once=True)
        assert held["statuses"] == [503]
    # As GitHub's list of failed deliveries is worked off: the same delivery again.
    again = partial(system.order, "github", "deliver", delivery=held["deliveries"][0])
    system.wait(lambda: again()["status"] == 202, "that the same delivery is taken")
    (job,) = system.settled()
    assert job.state == JobState.DONE
    assert {name for name, process in system.processes.items() if process.poll() is not None} == set()


@contextmanager
def nobody_writes(system: System) -> Iterator[None]:
    """The ledger takes no delivery meanwhile: another process holds SQLite's gate, or PostgreSQL's table of them."""
    url = system.environment["ASWHOM_DATABASE_URL"]
    if url.startswith("sqlite"):
        with (system.directory / "ledger.sqlite.gate").open("r+") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield
        return
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("lock table deliveries in access exclusive mode"))
        yield


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_command_that_slack_would_give_up_on_is_refused_before_and_not_done_later(
    start_system: Start, kind: str, request: pytest.FixtureRequest
) -> None:
    """Who is told that it failed gives it again, under another id: both would be done.

    Nobody else gives up before the sender's half a minute is over: who waits for the ledger's turn waits twice as long.
    """
    url = ""
    if kind == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        url = cluster.url(cluster.create_database())
    system = start_system(url, ASWHOM_TURN_TIMEOUT="60")
    system.start("web")
    assert slash_command(system, "acme", "issue First", trigger="1.1.first").status_code == 200  # the web is warm
    with nobody_writes(system):
        refused = slash_command(system, "acme", "issue Broken", trigger="1.1.a")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert slash_command(system, "acme", "issue Broken", trigger="1.1.b").status_code == 200
    taken = system.rows(select(deliveries.c.delivery_id).order_by(deliveries.c.received_at))
    assert [row.delivery_id for row in taken] == ["1.1.first", "1.1.b"]
