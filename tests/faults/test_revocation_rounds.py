"""Round after round: mixed jobs on three workers, a revocation at a random moment, and its proof.

Its scope is random as well, and by which way it comes; it counts from the answer on that whoever sent it had.
"""

from __future__ import annotations

import json
import math
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select

from deploy.demo import people
from deploy.demo.provision import GITHUB, SLACK, linear_of
from deploy.sandbox.world import PEOPLE, TENANTS
from identity.accounts.scopes import revoked_since
from identity.audit import Act
from identity.connect.consents import connect_service
from identity.minting.service_credential import ServiceCredential
from identity.model import AccountKey, Credential, Scope, ScopeKind
from identity.secret import Secret
from identity.tables import accounts, grants
from pipeline.accounts.connecting import wake_waiting
from pipeline.authoring.declared_workflow import PLATFORM_AGENT
from pipeline.authoring.uses import OnRevoke
from pipeline.revocation.declaration import under
from pipeline.revocation.pages import page_digest
from pipeline.revocation.tables import revocation_pages, revocations
from pipeline.states import AttemptState, JobState, StepState
from pipeline.tables import attempts, job_scopes, jobs, steps
from tests.faults.books import balance
from tests.faults.endings import count_moves_to_an_end, ended_after_its_receipt, moves_to_an_end
from tests.faults.mixture import begin_jobs, switch_on_greeting
from tests.faults.order import Order, prove_order
from tests.faults.receipts import receipt_of
from tests.faults.revoker_points import REVOKER_POINTS
from tests.faults.revoking import Way, ready, scopes
from tests.faults.withdrawn import held_under, prove_withdrawn
from tests.servers.process import Process
from tests.system.rig import WORKFLOWS, System
from tests.waiting import PATIENCE

WORKERS = ("worker", "worker-2", "worker-3")
OPENINGS = 18  # about as many as a round has


def give_back(system: System) -> None:
    """Every person and service whose authority was revoked consents anew, as in life."""
    for tenant in TENANTS:
        for through in (GITHUB, linear_of(tenant), SLACK):
            for who in (*PEOPLE[tenant], "service"):
                if through == SLACK and who != "service":
                    continue
                key = AccountKey(tenant=tenant, connection=through, principal=f"{tenant}.{who}")
                if not _stands(system, key):
                    _consent(system, key, who)


def _stands(system: System, key: AccountKey) -> bool:
    which = (
        (accounts.c.tenant_id == key.tenant)
        & (accounts.c.connection_id == key.connection)
        & (accounts.c.principal_id == key.principal)
    )
    found = system.rows(select(grants.c.consented, accounts.c.state).join(accounts).where(which))
    if not found or found[0].state != "active":
        return False
    read = system.runtime.database.read
    return read(lambda c: revoked_since(c, key.scopes, found[0].consented)) is None


def _consent(system: System, key: AccountKey, who: str) -> None:
    if who != "service":
        people.connect(system.runtime, key, web=system.web, login=who, now=datetime.now(UTC))
        return
    (account,) = system.rows(
        select(accounts, grants.c.scopes)
        .join(grants)
        .where(
            accounts.c.tenant_id == key.tenant,
            accounts.c.connection_id == key.connection,
            accounts.c.principal_id == key.principal,
        )
    )
    kind, token = Credential(account.credential), None
    if kind is Credential.STATIC:
        (workspace,) = [one for one in system.world["slack"]["workspaces"] if one["name"] == key.tenant]
        token = Secret(workspace["bot_token"])
        system.order("slack", "restore", team_id=workspace["team_id"])  # Slack has ended it as well
    connect_service(
        system.runtime.database,
        system.runtime.vault,
        key,
        ServiceCredential(kind=kind, token=token, external_id=account.external_id),
        Act(audit_id=system.ids("aud"), by="admin:test", now=datetime.now(UTC)),
        id=account.id,
        provider=account.provider,
        scopes=tuple(account.scopes),
        also=wake_waiting,
    )


@dataclass(frozen=True, kw_only=True)
class Played:
    """What came of a round."""

    order: Order
    way: Way
    scope: Scope
    compensated: int  # steps that were undone
    died_at: str | None  # the point at which its worker of revocations did
    broker_died: bool


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round did, for whoever reads why it failed."""

    number: int
    way: Way
    scope: Scope
    after: int  # openings of the round before the revocation
    in_mid_call: bool  # not before a call is out that it is about
    with_refreshes: bool  # the providers have ended all access tokens
    broker_dies: int | None  # after so many openings of the round
    patience: float  # seconds: without a broker some moments never come, and one is as good as another
    dies_at: str | None  # where the worker of revocations kills itself in the middle of this one
    held: bool = False  # no call leaves, and housekeeping is away, until the revocation has returned and it is dead


# Nothing dies, so the round takes no longer than its jobs.
_AS_IT_COMES: Mapping[str, Any] = {"broker_dies": None, "dies_at": None}
# Not left to chance: few rounds may come to none of these. All pull requests, of which each has some, go to GitHub.
FIXED: Mapping[int, Mapping[str, Any]] = {
    0: {"way": Way.API, "broker_dies": 2},
    1: {
        "way": Way.CLI,
        "scope": Scope(kind=ScopeKind.CONNECTION, key=GITHUB),
        "in_mid_call": True,
        "broker_dies": None,
        "dies_at": "after_chunk",
        "held": True,
    },
    2: {"way": Way.WEBHOOK},
    3: {**_AS_IT_COMES, "way": Way.CLI, "scope": Scope(kind=ScopeKind.CONNECTION, key=GITHUB), "in_mid_call": True},
    4: {**_AS_IT_COMES, "way": Way.CLI, "scope": Scope(kind=ScopeKind.AGENT, key="devops-assistant")},
}
# GitHub's webhook is about one account alone, so it comes less often.
WAYS = (Way.CLI, Way.CLI, Way.API, Way.API, Way.WEBHOOK)


def play(system: System, chance: random.Random, number: int, *, short: bool) -> Played:
    """One round: how many requests with what was revoked came before and after the revocation, and what died in it."""
    give_back(system)
    fixed = FIXED.get(number, {**_AS_IT_COMES, "way": Way.API} if short else {})
    way = fixed.get("way", chance.choice(WAYS))
    plan = Round(
        number=number,
        way=way,
        scope=chance.choice(scopes(way)),
        after=chance.randrange(OPENINGS),
        in_mid_call=chance.random() < 0.6,
        with_refreshes=chance.random() < 0.5,
        broker_dies=chance.randrange(OPENINGS // 3) if chance.random() < 0.3 else None,
        patience=chance.uniform(0, 3),
        dies_at=chance.choice(REVOKER_POINTS) if chance.random() < 0.4 else None,
    )
    plan = replace(plan, **fixed)
    print(plan)
    started = system.count(attempts)
    former = {job.id for job in system.jobs()}
    dying = None if plan.dies_at is None else _start_dying(system, plan.dies_at)
    if plan.with_refreshes:
        for provider in ("github", "linear"):
            system.order("auth", "expire", provider=provider)
    revoke = ready(system, plan.way, plan.scope, chance)
    if plan.held:
        _hold(system).touch()
        system.kill("housekeeping")
    begin_jobs(system, chance)
    until = math.inf
    if (openings := plan.broker_dies) is not None:
        system.wait(lambda: system.count(attempts) >= started + openings or not _moving(system), "the broker's moment")
        system.broker.kill()
        until = time.monotonic() + plan.patience
    try:
        system.wait(
            lambda: _the_moment(system, plan, started) or not _moving(system) or time.monotonic() >= until, "the moment"
        )
        held = held_under(system, plan.scope)
        answer = revoke()
        made = answer.id
        if plan.broker_dies is not None:
            receipt_of(system, made)  # housekeeping alone
        elif dying:
            system.ring.revocations([made])  # a command takes its time to, and housekeeping would be there before
        if plan.held:
            system.wait(lambda: dying is None or dying.poll() is not None, "the death of the worker of revocations")
            system.start("housekeeping")
    finally:
        _hold(system).unlink(missing_ok=True)
        if plan.broker_dies is not None:
            system.broker.restart()
    assert answer.command is None or answer.command.wait(PATIENCE) == 0
    system.settled(seconds=180)
    receipt_of(system, made)
    system.wait(lambda: not _open_ends(system, made), "the end of what followed", seconds=180)
    died_at = None
    if dying is not None:
        died_at = plan.dies_at if dying.poll() == -signal.SIGKILL else None
        print(f"its worker of revocations {'died in the middle' if died_at else 'lived on'}")
        system.processes["revocations"] = dying
        system.kill("revocations")
        system.start("revocations")
    receipt = receipt_of(system, made)
    order = prove(system, plan, receipt, answer.returned, former)
    prove_withdrawn(system, receipt, held)
    return Played(
        order=order,
        way=plan.way,
        scope=plan.scope,
        compensated=sum(one["outcome"] == "done" for one in receipt["compensations"]),
        died_at=died_at,
        broker_died=plan.broker_dies is not None,
    )


def _hold(system: System) -> Path:
    """While this file is there, no worker sends."""
    return system.directory / "hold"


def _start_dying(system: System, point: str) -> Process:
    """A worker of revocations that kills itself where it first comes to *point*; housekeeping does the rest."""
    system.kill("revocations")
    plan = system.directory / "dies.json"
    plan.write_text(json.dumps({"point": point, "passes": 1}))
    before = _times_ready(system)
    system.start("revocations", CRASH_PLAN=str(plan))
    system.wait(lambda: _times_ready(system) > before, "a worker of revocations that is to die")
    return system.processes.pop("revocations")  # that it ends is no fault


def _times_ready(system: System) -> int:
    """How often Celery said so of a worker of revocations. Else housekeeping might be there before it."""
    return sum(entry["event"].endswith(" ready.") for entry in system.logged("revocations"))


def _the_moment(system: System, plan: Round, started: int) -> bool:
    if plan.in_mid_call:
        return system.count(attempts, under(plan.scope, attempts), attempts.c.state == AttemptState.OPEN) > 0
    return system.count(attempts) >= started + plan.after


def _moving(system: System) -> int:
    return system.count(jobs, jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING)))


def _open_ends(system: System, made: str) -> int:
    return int(system.rows(select(revocations.c.open_ends).where(revocations.c.id == made))[0][0])


def prove(system: System, plan: Round, receipt: Mapping[str, Any], returned: datetime, former: set[str]) -> Order:
    """The upstreams' own logs, the receipt and the ledger say the same of what came after the revocation."""
    order = prove_order(system, receipt, returned)
    # What was opened after it was accepted after it: the jobs of this round's compensations, if the scope allows any.
    later = system.rows(
        select(attempts.c.id, jobs.c.accepted)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(under(plan.scope, attempts), attempts.c.opened > receipt["number"])
    )
    assert all(row.accepted > receipt["number"] for row in later), "opened against the rule"
    _prove_jobs(system, plan, receipt, former)
    balance(system)
    return order


def _prove_jobs(system: System, plan: Round, receipt: Mapping[str, Any], former: set[str]) -> None:
    new = [job for job in system.jobs() if job.id not in former]
    under = select(job_scopes.c.scopes_sha256, job_scopes.c.on_revoke).where(
        job_scopes.c.kind == plan.scope.kind, job_scopes.c.key == plan.scope.key
    )
    reached = {row.scopes_sha256: row.on_revoke for row in system.rows(under)}
    in_doubt = {call["job"] for call in receipt["in_flight"]} | _once_in_doubt(system)
    for job in new:
        of_scope = job.scopes_sha256 in reached and job.accepted < receipt["number"]
        # A step that may have taken effect is not skipped, so its job may end there.
        goes_on = reached.get(job.scopes_sha256) == OnRevoke.SKIP and job.id not in in_doubt
        allowed = {JobState.DONE, JobState.CANCELLED} if of_scope and not goes_on else {JobState.DONE}
        assert job.state in allowed, f"{plan}: {job.id} of {job.agent_id} is {job.state}: {job.reason}"
    _prove_skipping(system, [job for job in new if reached.get(job.scopes_sha256) == OnRevoke.SKIP], receipt)
    ended = {job.id for job in new if job.state == JobState.CANCELLED}
    assert set(receipt["cancelled_jobs"]) == ended
    assert len(receipt["cancelled_jobs"]) == receipt["cancelled_count"]
    pages = system.rows(select(revocation_pages).where(revocation_pages.c.revocation_id == receipt["revocation"]))
    assert {page_digest(page._asdict()) for page in pages} == {page["sha256"] for page in receipt["pages"]}
    told = Counter(job for page in pages for job in (*page.cancelled, *page.stopping))
    assert not [job for job, times in told.items() if times > 1], "a job was reached twice"
    for one in receipt["compensations"]:
        assert one["outcome"] == ("done" if one["by_job"] else "not compensated"), one
        assert one["by_job"] is None or one["by_job"] in {job.id for job in new if job.agent_id == PLATFORM_AGENT}


def _once_in_doubt(system: System) -> set[str]:
    """The jobs of calls that had no answer."""
    unanswered = attempts.c.state.in_((AttemptState.UNKNOWN, AttemptState.ADOPTED))
    return {row.job_id for row in system.rows(select(attempts.c.job_id).where(unanswered))}


def _prove_skipping(system: System, able: list[Row[Any]], receipt: Mapping[str, Any]) -> None:
    """The receipt counts the jobs that go on without what was revoked: those that had not finished before it."""
    before = [job for job in able if job.accepted < receipt["number"]]
    after = ended_after_its_receipt(system, receipt["revocation"])
    still = sum((job.id, job.accepted) in after for job in before)  # and others had ended when it was written
    assert still <= receipt["skipping_jobs"] <= len(before), receipt


@pytest.fixture
def workflows() -> tuple[str, ...]:
    return (*WORKFLOWS, "tests.faults.greeting")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("system", "rounds"),
    [
        ("sqlite", 10),
        pytest.param("sqlite", 100, marks=pytest.mark.slow),
        pytest.param("postgresql", 100, marks=pytest.mark.slow),
    ],
    indirect=["system"],
)
def test_round_after_round_nothing_follows_a_revocation_but_what_is_on_its_receipt(
    system: System, seed: random.Random, rounds: int
) -> None:
    plan = system.directory / "plan.json"
    plan.write_text(json.dumps({"point": "before_call", "pause": 0.4, "hold": str(_hold(system))}))
    system.worker_app = system.revocations_app = "tests.faults.crashing_worker"
    system.concurrency = 4
    count_moves_to_an_end(system)
    switch_on_greeting(system)
    give_back(system)
    system.start(*WORKERS, CRASH_PLAN=str(plan))
    played = [play(system, seed, number, short=rounds < 100) for number in range(rounds)]
    seen = [one.order for one in played]
    before, after = sum(one.before for one in seen), sum(one.after for one in seen)
    assert before, "no round had anything to revoke"
    deaths, outages = Counter(one.died_at for one in played if one.died_at), sum(one.broker_died for one in played)
    assert {one.way for one in played} == set(Way), "nothing was proven of a way by which nobody came"
    assert deaths, "no worker of revocations died, so nothing was proven of that"
    assert outages, "the broker was never down, so nothing was proven of that"
    assert after, "no call was out when its authority ended, so nothing was proven of those"
    skipped = system.count(steps, steps.c.state == StepState.SKIPPED)
    assert skipped or rounds < 100, "no job went on without what was revoked, so nothing was proven of those"
    kinds, compensated = Counter(str(one.scope.kind) for one in played), sum(one.compensated for one in played)
    assert kinds.keys() == set(ScopeKind) or rounds < 100, "nothing was proven of a kind of scope that was not revoked"
    assert compensated or rounds < 100, "nothing was undone, so nothing was proven of that"
    assert {"link_pull_request", "greet", "answer_mention"} <= {job.workflow for job in system.jobs()}
    assert set(moves_to_an_end(system).values()) == {1}, "a job ended twice since it was accepted"
    print(f"{rounds} rounds: {before} requests before their revocation, {after} on its receipt after it")
    print(f"{skipped} steps were skipped, and {compensated} were compensated")
    print(dict(kinds))
    print(dict(Counter(str(one.way) for one in played)))
    print(f"{outages} rounds without a broker; the worker of revocations died {dict(deaths)}")
    renewed = sum(one.renewed_before for one in seen), sum(one.renewed_after for one in seen)
    print("with what was revoked, token endpoints were asked {} times before, and {} in flight".format(*renewed))
