"""Revocation before, between and during steps, proven from the upstream's own log."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from identity.model import AccountState, Scope, ScopeKind
from identity.tables import accounts
from pipeline.authoring.declared_workflow import PLATFORM_AGENT
from pipeline.duties import reconcile
from pipeline.revocation.tables import revocations
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.tables import attempts, deliveries, jobs
from tests.faults.books import UPSTREAMS, balance, requests
from tests.faults.conftest import IMPATIENT
from tests.faults.gated import start_gated
from tests.faults.order import Order, prove_order
from tests.faults.pushing import transmitter
from tests.faults.receipts import receipt_of
from tests.faults.revoking import aswhom, refused
from tests.system.rig import System


def start_pausing(system: System, *, pause: float, concurrency: int) -> None:
    """A worker that stands still for a while between each intent's commit and the socket."""
    plan = system.directory / "plan.json"
    plan.write_text(json.dumps({"point": "before_call", "pause": pause}))
    system.worker_app, system.concurrency = "tests.faults.crashing_worker", concurrency
    system.start("worker", CRASH_PLAN=str(plan))


def newest_receipt(system: System) -> Mapping[str, Any]:
    """The receipt of what GitHub told last: about ada's account there."""
    (made, *_) = system.rows(select(revocations.c.id, revocations.c.source).order_by(revocations.c.number.desc()))
    receipt = receipt_of(system, made.id)
    assert receipt["scope"] == {"kind": "account", "key": "acme/github/acme.ada"}
    return receipt


def stop_tidying(system: System) -> None:
    """From here on the rule is all that holds a job up: nobody cancels it."""
    for tidying in ("revocations", "housekeeping"):
        system.kill(tidying)


def reaches_a_job(system: System) -> None:
    """What follows the call that is out may be allowed: then the job ends there because it is told to stop."""
    system.wait(lambda: system.count(jobs, jobs.c.state == JobState.STOPPING), "that a job is told to stop")


def test_before_its_first_step_as_her_a_job_that_is_queued_is_refused_by_the_rule_alone(system: System) -> None:
    """The worker finds the job queued, reads the pull request as the service, and files nothing."""
    system.connect("acme", "ada")
    stop_tidying(system)
    assert system.pull("acme/shop", "ada", "bug")["statuses"] == [202]
    made = system.revoke(Scope(kind=ScopeKind.USER, key="acme.ada"), "acme")
    returned = datetime.now(UTC)
    system.start("worker")
    system.wait(lambda: system.count(jobs, jobs.c.state == JobState.CANCELLED), "the job's end")
    assert {row.principal_id for row in system.attempts()} == {"acme.service"}
    assert system.effects("linear") == []
    system.start("revocations", "housekeeping")
    receipt = receipt_of(system, made)
    order = prove_order(system, receipt, returned)
    assert (order.before, order.after, receipt["in_flight"]) == (0, 0, [])
    balance(system)


def test_between_two_steps_what_was_done_stays_and_what_would_follow_is_not_made(system: System) -> None:
    """Her issue is committed and her comment not begun when she is revoked."""
    system.connect("acme", "ada")
    stop_tidying(system)
    assert system.pull("acme/shop", "ada", "bug")["statuses"] == [202]
    # The pull request, the issue.
    gate = start_gated(system, "after_commit", passes=2, concurrency=1)
    hers = attempts.c.principal_id == "acme.ada"
    assert system.count(attempts, hers, attempts.c.state == AttemptState.EFFECT) == system.count(attempts, hers) == 1
    made = system.revoke(Scope(kind=ScopeKind.USER, key="acme.ada"), "acme")
    returned = datetime.now(UTC)
    gate.open()
    system.wait(lambda: system.count(jobs, jobs.c.state == JobState.CANCELLED), "the job's end")
    (job,) = system.jobs()
    system.start("revocations", "housekeeping")
    receipt = receipt_of(system, made)
    order = prove_order(system, receipt, returned)
    assert (order.before, order.after, receipt["in_flight"]) == (1, 0, [])
    assert [(step.action, step.state) for step in system.steps(job.id)] == [
        ("github.GetPull", StepState.DONE),
        ("linear.CreateIssue", StepState.DONE),
        ("github.Comment", StepState.REFUSED),
    ]
    assert not [entry for entry in system.effects("github") if entry["actor"] == "ada"]
    balance(system)


@pytest.mark.timeout(400)
def test_a_call_that_is_out_is_on_the_receipt_and_nothing_follows_it(system: System) -> None:
    """One worker thread, stopped between its intent and the socket; three more jobs wait behind it.

    An identity provider says that her session was revoked. A forged word of it, and a repetition, change nothing.
    """
    system.connect("acme", "ada")
    for _ in range(4):
        system.pull("acme/shop", "ada", "bug")
    with transmitter(system) as idp:
        # The first pass reads the pull request, as the service.
        gate = start_gated(system, "before_call", passes=2, concurrency=1)
        assert system.count(attempts, attempts.c.principal_id == "acme.ada") == 1
        forged = idp.push("j-1", forged=True)
        assert (forged.status_code, forged.json()["err"]) == (400, "invalid_key")
        assert system.count(revocations) == 0
        assert idp.push("j-1").status_code == 202
        returned = datetime.now(UTC)
        assert idp.push("j-1").status_code == 202
    (told,) = system.rows(select(revocations.c.id, revocations.c.source))
    made = told.id
    assert told.source == "caep.session-revoked"
    reaches_a_job(system)
    gate.open()
    receipt = receipt_of(system, made)
    assert receipt["scope"] == {"kind": "user", "key": "acme.ada"}
    order = prove_order(system, receipt, returned)
    assert (order.before, order.after) == (0, 1)
    (call,) = receipt["in_flight"]
    assert (call["ended"], call["outcome"]) == ("ended", "effect")
    of_people = [
        job for job in system.settled() if job.agent_id != PLATFORM_AGENT
    ]  # an issue was made: a notice follows
    assert {job.state for job in of_people} == {JobState.CANCELLED}
    assert sorted(receipt["cancelled_jobs"]) == sorted(job.id for job in of_people)
    balance(system)


@pytest.mark.timeout(600)
def test_an_issue_whose_job_was_stopped_is_told_of_by_the_platform(system: System) -> None:
    """Stopped after the issue: ada's consent at GitHub ends while her comment is on its way."""
    system.connect("acme", "ada")
    system.pull("acme/shop", "ada", "bug")
    # The pull request, the issue, the comment.
    gate = start_gated(system, "before_call", passes=3, concurrency=1)
    commenting = (attempts.c.principal_id == "acme.ada") & (attempts.c.connection_id == "github")
    assert system.count(attempts, commenting, attempts.c.state == AttemptState.OPEN) == 1
    made = system.revoke_and_ring(system.account("acme", "github", "ada"), "acme")
    reaches_a_job(system)
    gate.open()
    receipt_of(system, made)
    system.wait(lambda: receipt_of(system, made)["compensations"][0]["outcome"] == "done", "the compensation")
    (one,) = receipt_of(system, made)["compensations"]
    (stopped,) = [job for job in system.jobs() if job.id == one["job"]]
    (notice,) = [job for job in system.jobs() if job.id == one["by_job"]]
    assert (stopped.state, one["action"]) == (JobState.CANCELLED, "linear.CreateIssue")
    assert (notice.agent_id, notice.user_id, notice.state) == ("aswhom", None, JobState.DONE)
    # By Linear's own log: the issue in ada's name, the notice in the app's, once each.
    issue, said = [entry for entry in system.sandbox("linear", "log") if entry["effect"]]
    assert (issue["operation"], said["operation"]) == ("issueCreate", "commentCreate")
    (attempt,) = [row for row in system.attempts() if row.job_id == notice.id]
    assert (said["attempt"], attempt.principal_id) == (attempt.id, "acme.service")
    # What was said to have ended does not go on.
    assert f"was compensated by job {notice.id}" in refused(system, "jobs", "replay", stopped.id, "--yes")
    assert stopped in system.settled()
    balance(system)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [pytest.param(IMPATIENT, id="impatient")])
def test_a_call_that_never_ends_is_presumed_to_have_ended(sqlite_system: System) -> None:
    system = sqlite_system
    system.connect("acme", "ada")
    system.order("linear", "faults", mode="delay", endpoint="issueCreate", seconds=20, when="before")
    system.pull("acme/shop", "ada", "bug")
    system.start("worker")
    system.wait(lambda: any(entry["fault"] for entry in system.sandbox("linear", "log")), "a call that hangs")
    made = system.revoke(system.account("acme", "linear-acme", "ada"), "acme")
    returned = datetime.now(UTC)
    system.kill("worker")  # nobody is left to close it
    receipt = receipt_of(system, made)
    order = prove_order(system, receipt, returned)
    assert (order.before, order.after) == (1, 0)
    assert [(call["ended"], call["outcome"]) for call in receipt["in_flight"]] == [("presumed ended", "unknown")]
    assert {job.state for job in system.settled()} == {JobState.CANCELLED}


def revoke_under_load(system: System, seed: random.Random, *, pulls: int, pause: float) -> Order:
    """Jobs of two people, one of whom is revoked somewhere in the middle, while nobody cancels: the rule is all."""
    system.connect("acme", "ada", "grace")
    for n in range(pulls):
        system.pull("acme/shop", "grace" if n % 4 == 0 else "ada", "bug")
    start_pausing(system, pause=pause, concurrency=8)
    enough = seed.randrange(pulls // 4)
    made_by_ada = (attempts.c.principal_id == "acme.ada") & (attempts.c.connection_id == "linear-acme")
    done = made_by_ada & (attempts.c.state == AttemptState.EFFECT)
    system.wait(lambda: system.count(attempts, done) > enough, "the middle of the work")
    stop_tidying(system)
    made = system.revoke(system.account("acme", "linear-acme", "ada"), "acme")
    returned = datetime.now(UTC)

    def at_rest() -> bool:
        # Whoever waited for a rate limit needs a bell, and housekeeping is gone.
        reconcile.dispatch(system.runtime.database, system.ring, window=16)
        return not system.count(jobs, jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING, JobState.STOPPING)))

    system.wait(at_rest, "that all jobs settle")
    ended = system.jobs()
    system.start("revocations", "housekeeping")
    receipt = receipt_of(system, made)
    order = prove_order(system, receipt, returned)
    assert order.before, "nothing was sent that the revocation could have come after"
    assert {job.state for job in ended if job.user_id == "acme.grace"} == {JobState.DONE}
    assert {job.state for job in ended if job.user_id == "acme.ada"} == {JobState.DONE, JobState.CANCELLED}
    assert set(receipt["cancelled_jobs"]) <= {job.id for job in ended if job.state == JobState.CANCELLED}
    balance(system)
    return order


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_revocation_under_load_is_ordered_in_the_upstreams_log(system: System, seed: random.Random) -> None:
    order = revoke_under_load(system, seed, pulls=24, pause=0.2)
    print(f"{order.before} requests before the revocation, {order.after} on its receipt after it")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pause", [0.02, 0.1, 0.4, 0.8])
def test_many_jobs_under_a_revocation(system: System, seed: random.Random, pause: float) -> None:
    order = revoke_under_load(system, seed, pulls=120, pause=pause)
    print(f"{order.before} requests before the revocation, {order.after} on its receipt after it")


@pytest.mark.timeout(500)
def test_a_signal_without_a_broker_is_effective_cancels_and_gets_its_receipt(system: System) -> None:
    """GitHub says that ada has withdrawn, while Valkey is down; she comes back, and withdraws with the same bytes."""
    system.connect("acme", "ada")
    before = system.pull("acme/shop", "ada", "bug")
    assert before["statuses"] == [202]
    system.broker.kill()
    assert system.order("github", "authorizations/revoke", user="ada")["statuses"] == [202]
    receipt = newest_receipt(system)
    assert receipt["in_flight"] == []
    assert receipt["cancelled_jobs"] == [job.id for job in system.jobs()]
    system.broker.restart()
    system.connect("acme", "ada")
    assert system.order("github", "authorizations/revoke", user="ada")["statuses"] == [202]
    assert newest_receipt(system)["cancelled_jobs"] == []
    state = select(accounts.c.state).where(accounts.c.connection_id == "github", accounts.c.principal_id == "acme.ada")
    assert system.rows(state) == [(AccountState.REVOKED,)]
    system.start("worker")
    # Accepted after the revocation: it runs as far as it needs no one's word, then waits for hers.
    after = system.pull("acme/shop", "ada", "bug")
    assert after["statuses"] == [202]
    (first, second) = system.settled()
    assert (first.state, second.state, second.wait) == (JobState.CANCELLED, JobState.WAITING, Wait.CONSENT)
    system.connect("acme", "ada")
    assert [job.state for job in system.settled()] == [JobState.CANCELLED, JobState.DONE]
    # Nothing but her own "who am I?" came with the revoked tokens.
    assert not [entry for entry in requests(system) if f"issues/{before['number']}/" in entry["path"]]
    assert system.count(deliveries, deliveries.c.outcome == "signal") == 2
    # Her consent alone did not bring the first one back: a person does, and it writes each thing once.
    assert first.id not in {row.job_id for row in system.attempts()}
    aswhom(system, "jobs", "replay", first.id, "--yes")
    again = system.settled()[-1]  # accepted anew
    assert (again.id, again.state) == (first.id, JobState.DONE)
    its = {row.id: row.opened for row in system.attempts() if row.job_id == first.id}
    assert all(opened > again.accepted for opened in its.values())
    wrote = [(service, entry) for service in UPSTREAMS for entry in system.effects(service) if entry["attempt"] in its]
    assert [service for service, _ in wrote] == ["github", "linear", "slack"]
    balance(system)
