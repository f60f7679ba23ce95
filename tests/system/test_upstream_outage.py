"""An upstream that goes away under a whole installation: who finds it out, who asks again, and how all of it ends."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select, update

from deploy.sandbox.world import PEOPLE, TENANTS
from identity.model import AccountState, Credential
from identity.tables import accounts, grants
from pipeline.states import JobState, Wait
from tests.servers.postgres import Postgres
from tests.system.conftest import Start
from tests.system.errands import file_issue, say_it
from tests.system.fleet import ALWAYS, COOLING, FAILURES, PROBE, SETTINGS, SLOTS, WORKERS, Fleet, Illness, gaps
from tests.system.rig import System

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EACH = 4  # jobs of each person at each upstream
#: All that can be sent before it is known that Linear is away: each tenant's failures, and what is out by then.
BEFORE_KNOWN = len(TENANTS) * FAILURES + len(WORKERS) * SLOTS


@pytest.fixture(params=["sqlite", "postgresql"])
def bare(request: pytest.FixtureRequest, start_system: Start) -> System:
    """The sandbox alone."""
    url = ""
    if request.param == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        url = cluster.url(cluster.create_database())
    return start_system(url, **SETTINGS)


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten people in each tenant."""
    for tenant, few in PEOPLE.items():
        monkeypatch.setitem(PEOPLE, tenant, (*few, *(f"{tenant}-{number}" for number in range(10 - len(few)))))


@pytest.fixture
def fleet(bare: System) -> Fleet:
    """Everybody is connected, and every account has been used."""
    fleet = Fleet(bare)
    for tenant in TENANTS:
        for login in PEOPLE[tenant]:
            fleet.connect(tenant, login)
    made = fleet.queue_for_all(file_issue, 1) + fleet.queue_for_all(say_it, 1)
    bare.wait(fleet.all_are(made, JobState.DONE), "a job of everybody's at each upstream")
    return fleet


def found_out(fleet: Fleet, filed: list[str]) -> None:
    """Wait until everybody waits for Linear, and all tenants together know why."""
    fleet.system.wait(fleet.is_found_out, "that the host's breaker opens")
    fleet.system.wait(fleet.all_are(filed, JobState.WAITING, Wait.UPSTREAM), "that all wait for Linear")


def probes(fleet: Fleet, since: datetime, number: int) -> list[datetime]:
    """Wait for so many calls of Linear since then."""
    fleet.system.wait(lambda: len(fleet.asked(since)) >= number, f"{number} probes", seconds=180)
    return fleet.asked(since)


def others_go_on(fleet: Fleet) -> None:
    """What has nothing to do with Linear is done meanwhile, by Slack's own log."""
    began, made = time.monotonic(), fleet.queue_for_all(say_it, EACH)
    fleet.system.wait(fleet.all_are(made, JobState.DONE), "the jobs at Slack", seconds=180)
    did = fleet.effects("slack")
    assert {did[job] for job in made} == {1}
    print(f"{len(made)} jobs at Slack in {time.monotonic() - began:.1f} s")


def everything_ends(fleet: Fleet, filed: list[str]) -> None:
    """Linear is back: all is done, once, and nothing waits or is remembered."""
    system, began = fleet.system, time.monotonic()
    system.wait(lambda: fleet.states(filed)[JobState.DONE, None], "a probe that is answered", seconds=300)
    print(f"{time.monotonic() - began:.1f} s from its return to the first job that is done")
    system.wait(fleet.all_are(filed, JobState.DONE), "that all is done", seconds=300)
    print(f"{time.monotonic() - began:.1f} s from its return to the last of {len(filed)} jobs")
    did = fleet.effects("linear")
    assert {did[job] for job in filed} == {1}
    assert not fleet.breaker()
    assert not any(fleet.breaker(tenant) for tenant in TENANTS)


@pytest.mark.parametrize("how", ["answers 503", "hangs", "refuses connections"])
def test_few_ask_while_it_is_away_others_go_on_and_then_all_is_done_once(fleet: Fleet, how: str) -> None:
    system, illness, began = fleet.system, Illness(fleet.system, how), datetime.now(UTC)
    illness.begin()
    filed = fleet.queue_for_all(file_issue, EACH)
    others_go_on(fleet)
    found_out(fleet, filed)
    assert len(fleet.asked(began)) <= BEFORE_KNOWN
    known, spent = datetime.now(UTC), fleet.spent(began)
    print(f"{len(fleet.asked(began))} calls until it was known, {spent} of them spent an attempt")

    # What is withdrawn meanwhile needs no upstream.
    tenant, login = "acme", PEOPLE["acme"][0]
    hers = [job.id for job in system.jobs() if job.id in filed and job.user_id == f"{tenant}.{login}"]
    revoked = system.revoke_and_ring(system.account(tenant, "linear-acme", login), tenant)
    system.wait(fleet.all_are(hers, JobState.CANCELLED), "that her jobs are cancelled")
    system.wait(lambda: system.receipt(revoked) is not None, "the receipt")
    cancelled = datetime.now(UTC)
    filed = [job for job in filed if job not in hers]

    seen = probes(fleet, known, 3)
    others_go_on(fleet)
    assert min(gaps(seen)) >= COOLING - 1, "a probe came before the last one's cooling was over"
    print(f"{len(seen)} probes, apart by {[round(gap, 1) for gap in gaps(seen)]} s")
    assert fleet.spent(known) == 0, "a probe of what is away spends no attempt"
    assert not set(fleet.states(filed)) - {
        (JobState.WAITING, Wait.UPSTREAM),
        (JobState.QUEUED, None),
        (JobState.RUNNING, None),
    }

    def told() -> bool:
        waits = fleet.counted("aswhom_upstream_waits_total", provider="linear", why="away")
        return waits == fleet.sent_back()["file_issue"]

    system.wait(told, "that the metric says what the logs say")  # a run that is on its way is counted first
    assert not fleet.counted("aswhom_upstream_waits_total", provider="slack", why="away")

    illness.end()
    everything_ends(fleet, filed)
    assert not [entry for entry in fleet.arrived() if entry["actor"] == login and entry["at"] > cancelled.isoformat()]
    assert fleet.states(hers) == {(JobState.CANCELLED, None): len(hers)}


def test_valkey_dies_and_comes_back_in_the_middle(fleet: Fleet) -> None:
    system, illness, began = fleet.system, Illness(fleet.system, "answers 503"), datetime.now(UTC)
    illness.begin()
    filed = fleet.queue_for_all(file_issue, EACH)
    found_out(fleet, filed)
    known = datetime.now(UTC)
    probes(fleet, known, 1)
    system.broker.kill()
    said = fleet.queue_for_all(say_it, EACH)
    system.wait(lambda: any("Error" in str(entry) for entry in system.logged("housekeeping")), "that it is missed")
    system.broker.restart()
    system.wait(fleet.all_are(said, JobState.DONE), "the jobs at Slack")
    back = datetime.now(UTC)
    seen = probes(fleet, back, 2)
    # Each worker may have found it out anew by itself, and what was out with it.
    assert len(fleet.asked(began)) <= BEFORE_KNOWN * (1 + len(WORKERS)) + len(seen)
    print(f"{len(fleet.asked(known))} calls since it was known, {fleet.spent(known)} of them spent an attempt")
    illness.end()
    everything_ends(fleet, filed)
    did = fleet.effects("slack")
    assert {did[job] for job in said} == {1}


def test_a_probe_whose_worker_was_killed_keeps_nothing_shut(fleet: Fleet) -> None:
    system, illness = fleet.system, Illness(fleet.system, "hangs")
    illness.begin()
    filed = fleet.queue_for_all(file_issue, EACH)
    found_out(fleet, filed)
    arrived = len(fleet.system.sandbox("linear", "log"))
    system.wait(lambda: len(fleet.system.sandbox("linear", "log")) > arrived, "a probe that hangs", seconds=120)
    for name in WORKERS:  # one of them is the probe's
        system.kill(name)
    killed = datetime.now(UTC)
    assert fleet.breaker()["prober"] in filed
    fleet.start_workers()
    illness.end()
    (first, *_) = probes(fleet, killed, 1)
    print(f"{(first - killed).total_seconds():.1f} s until the next probe")
    assert (first - killed).total_seconds() <= PROBE + 2 * COOLING
    everything_ends(fleet, filed)


def test_thirty_accounts_need_tokens_while_their_endpoints_are_away_and_lose_none(crowd: None, bare: System) -> None:
    """Each tenant's connection has a gate of its own."""
    fleet, system = Fleet(bare), bare
    for tenant in TENANTS:
        for login in PEOPLE[tenant]:
            fleet.connect(tenant, login)
    mine = select(accounts.c.id).where(
        accounts.c.provider == "linear", accounts.c.credential == Credential.AUTHORIZATION_CODE
    )
    ended = update(grants).where(grants.c.account_id.in_(mine)).values(expires_at=datetime.now(UTC))
    assert system.runtime.database.write(lambda c: c.execute(ended).rowcount) == 30
    endpoint = "/linear/oauth/token"
    system.order("auth", "faults", mode="status", status=503, endpoint=endpoint, times=ALWAYS)
    before = len(system.sandbox("auth", "presentations"))
    filed = fleet.queue_for_all(file_issue, 1)

    def presented() -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = system.sandbox("auth", "presentations")[before:]
        return shown

    def known() -> bool:
        return len(fleet.token_breakers()) == len(TENANTS)

    others_go_on(fleet)
    system.wait(known, "that each tenant's gate shuts")
    out = len(WORKERS) * SLOTS
    assert len(presented()) <= len(TENANTS) * FAILURES + out
    print(f"{len(presented())} requests until it was known")

    tenant, login = "acme", PEOPLE["acme"][0]
    (hers,) = (job.id for job in system.jobs() if job.id in filed and job.user_id == f"{tenant}.{login}")
    system.revoke_and_ring(system.account(tenant, "linear-acme", login), tenant)
    system.wait(fleet.all_are([hers], JobState.CANCELLED), "that her job is cancelled")
    filed.remove(hers)

    shut, seen = datetime.now(UTC).isoformat(), len(presented())
    system.wait(lambda: len(presented()) >= seen + 2 * len(TENANTS), "two probes of each", seconds=180)
    probed = [one for one in presented() if one["at"] > shut]
    for client in {one["client_id"] for one in probed}:
        times = [datetime.fromisoformat(one["at"]) for one in probed if one["client_id"] == client]
        print(f"{len(times)} probes, apart by {[round(gap, 1) for gap in gaps(times)]} s")
        assert min(gaps(times), default=COOLING) >= COOLING - 1
    assert {one["outcome"] for one in presented()} == {"not_processed"}

    system.http.delete(f"{system.world['auth']['url']}/_sandbox/faults")
    everything_ends(fleet, filed)
    served = Counter(one["fingerprint"] for one in presented() if one["outcome"] != "not_processed")
    assert {one["outcome"] for one in presented()} == {"not_processed", "ok"}
    assert set(served.values()) == {1}
    assert len(served) >= len(filed)
    assert not [one for one in presented() if one["user"] == login and one["at"] > shut]
    states = system.rows(
        select(accounts.c.state, func.count()).where(accounts.c.id.in_(mine)).group_by(accounts.c.state)
    )
    assert {tuple(row) for row in states} == {(AccountState.ACTIVE, len(filed)), (AccountState.REVOKED, 1)}
    assert {job.runs_spent for job in system.jobs()} == {0}
