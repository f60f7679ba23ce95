"""kill -9 of the worker at every point where it knows something the ledger does not, or the other way round."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import select

from identity.audit import Act
from identity.model import AccountState
from identity.tables import accounts
from pipeline.states import AttemptState, JobState, Wait
from pipeline.steps.resolution import Resolution, resolve_by_hand
from tests.faults.books import accepted, balance, unresolved, written_about
from tests.faults.conftest import IMPATIENT
from tests.faults.crashing_worker import CALL_POINTS, REFRESH_POINTS
from tests.faults.endings import count_moves_to_an_end, every_job_ended_once
from tests.faults.time_passes import AWHILE
from tests.system.rig import System

PEOPLE = {"acme": ("ada", "grace"), "globex": ("linus", "margaret")}
REPOSITORY = {"acme": "acme/shop", "globex": "globex/site"}


@pytest.fixture
def settings() -> Mapping[str, str]:
    return IMPATIENT


def start_until_killed(system: System, point: str, passes: int) -> None:
    """A worker that kills itself at its *passes*-th arrival at *point*, started and waited for."""
    plan = system.directory / "plan.json"
    plan.write_text(json.dumps({"point": point, "passes": passes}))
    system.start("worker", CRASH_PLAN=str(plan))
    worker = system.processes.pop("worker")
    try:
        deadline = time.monotonic() + AWHILE
        while worker.poll() is None:
            assert time.monotonic() < deadline, f"{point} was not passed {passes} times\n{system.log('worker')}"
            time.sleep(0.01)
        assert worker.returncode == -9, system.log("worker")
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def open_pulls(system: System, number: int) -> list[str]:
    """Pull requests of everybody in turn, each with a label that files an issue as its author."""
    everybody = [(tenant, login) for tenant, logins in PEOPLE.items() for login in logins]
    opened = []
    for n in range(number):
        tenant, login = everybody[n % len(everybody)]
        pull = system.pull(REPOSITORY[tenant], login, "bug")
        assert pull["statuses"] == [202]
        opened.append(f"{REPOSITORY[tenant]}#{pull['number']}")
    return opened


def everything_ended(system: System, pulls: list[str]) -> None:
    """Every job is done, or waits for a person's word about a Slack message, and nothing was written twice."""
    settled = system.settled(seconds=AWHILE)
    assert len(settled) == accepted(system) == len(pulls)
    assert {(job.state, job.wait) for job in settled} <= {(JobState.DONE, None), (JobState.WAITING, Wait.UNKNOWN)}, (
        system.state()
    )
    in_doubt = unresolved(system)
    assert {(row.action, row.state) for row in in_doubt} <= {("slack.PostMessage", AttemptState.UNKNOWN)}
    assert sorted(row.job_id for row in in_doubt) == sorted(job.id for job in settled if job.state == JobState.WAITING)
    balance(system)
    written = written_about(system, pulls)
    assert written["comments"] == Counter(pulls)
    assert max(written["messages"].values()) == 1
    assert len(system.effects("linear")) == len(pulls)


def answer_for_slack(system: System) -> int:
    """An operator looks at Slack and says of each call in doubt what became of it; returns how many there were."""
    posted = {message["attempt"]: message for message in system.sandbox("slack", "messages")}
    in_doubt = unresolved(system)
    for row in in_doubt:
        message = posted.get(row.id)
        result = message and {"channel": message["channel"], "ts": message["ts"]}
        found_out = Resolution(calls=[row.id], effect=message is not None, result=result)
        act = Act(audit_id=system.runtime.ids("aud"), by="user:operator", now=datetime.now(UTC))
        workflows = system.runtime.workflows
        say = partial(resolve_by_hand, job=row.job_id, found_out=found_out, act=act, workflows=workflows)
        system.runtime.database.write(say)
    return len(in_doubt)


def crash_calls(system: System, seed: random.Random, *, pulls: int, kills: int) -> None:
    system.worker_app, system.concurrency = "tests.faults.crashing_worker", 4
    for tenant, logins in PEOPLE.items():
        system.connect(tenant, *logins)
    count_moves_to_an_end(system)
    opened = open_pulls(system, pulls)
    points = [CALL_POINTS[n % len(CALL_POINTS)] for n in range(kills)]
    seed.shuffle(points)
    for point in points:
        start_until_killed(system, point, seed.randint(1, 14))
    system.start("worker")
    everything_ended(system, opened)
    print(f"{kills} kills, {answer_for_slack(system)} calls for an operator")
    assert {job.state for job in system.settled()} == {JobState.DONE}
    every_job_ended_once(system)
    balance(system)
    assert written_about(system, opened)["messages"] == Counter(opened)


@pytest.mark.timeout(600)
def test_a_worker_killed_in_its_steps_loses_nothing_and_does_nothing_twice(system: System, seed: random.Random) -> None:
    crash_calls(system, seed, pulls=12, kills=3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixty_kills_lose_nothing_and_do_nothing_twice(system: System, seed: random.Random) -> None:
    crash_calls(system, seed, pulls=240, kills=60)


@pytest.mark.timeout(600)
def test_a_worker_killed_in_a_refresh_never_presents_a_token_again(system: System) -> None:
    """What was answered and stored goes on by itself; what may have been rotated unseen waits for a person."""
    system.worker_app = "tests.faults.crashing_worker"
    everybody = [(tenant, login) for tenant, logins in PEOPLE.items() for login in logins]
    opened = []
    for n, ((tenant, login), point) in enumerate(zip(everybody, REFRESH_POINTS, strict=True)):
        system.connect(tenant, login)
        system.order("auth", "expire", provider="linear", user=login)
        opened.append(f"{REPOSITORY[tenant]}#{system.pull(REPOSITORY[tenant], login, 'bug')['number']}")
        minted = n % 2 == 0  # a tenant's first job passes once more, with its installation's token
        start_until_killed(system, point, 2 if minted else 1)
    system.start("worker")
    lost = ["acme.ada", "acme.grace"]  # killed before and after the refresh was sent: nobody can tell the two apart
    ended: dict[str, tuple[str, str | None]] = dict.fromkeys(lost, (JobState.WAITING, Wait.CONSENT))
    ended |= dict.fromkeys(("globex.linus", "globex.margaret"), (JobState.DONE, None))
    system.wait(
        lambda: {job.user_id: (job.state, job.wait) for job in system.jobs()} == ended, "what can end", seconds=AWHILE
    )
    given_up = select(accounts.c.principal_id).where(accounts.c.state == AccountState.NEEDS_RECONNECT)
    assert sorted(system.rows(given_up)) == [(who,) for who in lost]
    for who in lost:
        system.connect(*who.split("."))
    assert {job.state for job in system.settled()} == {JobState.DONE}
    balance(system)
    assert written_about(system, opened) == {"comments": Counter(opened), "messages": Counter(opened)}
