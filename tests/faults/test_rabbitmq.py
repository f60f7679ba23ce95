"""A RabbitMQ that is killed, frozen and away under load: it holds nothing that cannot be rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from pipeline.states import JobState
from pipeline.tables import jobs, schedules, slots
from tests.faults.endings import count_moves_to_an_end
from tests.faults.pulls import done, everything_is_done, open_pulls, out
from tests.faults.receipts import receipt_of
from tests.faults.time_passes import AWHILE, lapse_bells
from tests.servers.process import free_port
from tests.servers.rabbitmq import RabbitMQ
from tests.system.rig import System

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("system", ["sqlite", "postgresql"], indirect=True),
]

METRICS = free_port()


@pytest.fixture
def broker(own_rabbitmq: RabbitMQ) -> RabbitMQ:
    return own_rabbitmq


@pytest.fixture
def settings() -> Mapping[str, str]:
    return {"ASWHOM_HOUSEKEEPING_METRICS_PORT": str(METRICS), "ASWHOM_BEAT_INTERVAL": "0.2"}


def lying(system: System) -> float:
    """What housekeeping's gauge says of all queues; NaN, which equals nothing, while the broker does not answer."""
    lines = system.http.get(f"http://127.0.0.1:{METRICS}/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("aswhom_bells_lying{"))


def make_a_slot_due(system: System) -> None:
    due = (
        update(schedules)
        .where(schedules.c.tenant_id == "acme")
        .values(next_at=datetime.now(UTC) - timedelta(seconds=1))
    )
    system.runtime.database.write(lambda c: c.execute(due).rowcount)


def test_what_was_accepted_ends_though_rabbitmq_is_killed_frozen_and_stays_away(system: System) -> None:
    """With four slots, each in a slow call when the broker dies; nobody is started anew."""
    system.connect("acme", "ada")
    count_moves_to_an_end(system)
    system.concurrency = 4
    system.order("linear", "faults", mode="delay", endpoint="issueCreate", seconds=0.6, times=10_000)
    pulls = open_pulls(system, 12)
    system.wait(lambda: lying(system) > 0, "that the gauge counts them")
    system.start("worker")
    for n in range(2):
        system.wait(lambda: out(system) == system.concurrency, "a call in every slot")
        system.broker.kill()
        pulls += open_pulls(system, 4)
        system.wait(lambda: lying(system) != lying(system), "that the gauge says nothing")
        if n:
            system.wait(lambda: not out(system), "the end of the calls that are out")
        system.broker.start()
    lapse_bells(system)
    everything_is_done(system, pulls, seconds=AWHILE)
    # Now nobody works whose end would ring for the next: the dispatcher alone brings these.
    system.broker.pause()
    pulls += open_pulls(system, 6)
    system.broker.resume()
    lapse_bells(system)
    everything_is_done(system, pulls, seconds=AWHILE)
    system.wait(lambda: lying(system) == 0, "that the gauge is back at nothing")


def test_a_revocation_without_a_broker_is_effective_and_is_carried_on_when_it_is_back(system: System) -> None:
    system.connect("acme", "ada")
    pulls = [system.pull("acme/shop", "ada", "bug", once=True) for _ in range(3)]
    assert [pull["statuses"] for pull in pulls] == [[202]] * 3
    system.broker.kill()
    made = system.revoke_and_ring(system.account("acme", "github", "ada"), "acme")
    receipt = receipt_of(system, made)
    assert sorted(receipt["cancelled_jobs"]) == sorted(job.id for job in system.jobs())
    system.broker.start()
    system.start("worker")
    second = system.revoke_and_ring(system.account("acme", "linear", "ada"), "acme")
    assert receipt_of(system, second)["cancelled_jobs"] == []
    assert {job.state for job in system.settled()} == {JobState.CANCELLED}
    assert not system.effects("linear")
    # The bell of the second is heard by the process that the kill cut off, or will be.
    system.wait(lambda: system.ring.unheard("revocations") == 0, "that the revocations process hears again")


def test_a_slot_that_fires_without_a_broker_runs_when_it_is_back(system: System) -> None:
    system.connect("acme", "ada")
    system.start("worker", "beat")
    system.broker.kill()
    make_a_slot_due(system)
    system.wait(lambda: system.rows(select(func.count()).select_from(slots))[0][0] == 1, "the slot")
    system.broker.start()
    system.wait(lambda: system.count(jobs, jobs.c.workflow == "daily_digest", jobs.c.state == JobState.DONE) == 1, "it")
    assert done(system) == 1
