"""A schedule that two beats keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import update

from pipeline.states import JobState, StepState
from pipeline.tables import schedules, slots
from tests.servers.postgres import Postgres
from tests.system.conftest import Start
from tests.system.rig import System

BEATS = ("beat", "beat-2")


def _make_due(system: System, tenant: str) -> None:
    due = update(schedules).where(schedules.c.tenant_id == tenant)
    slot = datetime.now(UTC) - timedelta(seconds=1)
    system.runtime.database.write(lambda c: c.execute(due.values(next_at=slot)).rowcount)


def _fired(system: System, number: int) -> bool:
    return system.count(slots) == number


def _has_ticked(system: System, beat: str) -> bool:
    """Celery says after each tick when the next one is."""
    return any("Waking up" in entry["event"] for entry in system.logged(beat))


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_two_beats_fire_a_slot_once_and_the_digest_runs_as_the_service(
    start_system: Start, request: pytest.FixtureRequest, database: str
) -> None:
    url = ""
    if database == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        url = cluster.url(cluster.create_database())
    system = start_system(url, ASWHOM_BEAT_INTERVAL="0.1")
    system.start("web", "worker", "housekeeping")
    system.start(*BEATS, ASWHOM_LOG_LEVEL="DEBUG")
    system.connect("acme", "ada")
    system.pull("acme/shop", "ada")
    for beat in BEATS:
        system.wait(partial(_has_ticked, system, beat), f"a tick of {beat}")
    for fired in (1, 2, 3):
        _make_due(system, "acme")
        system.wait(partial(_fired, system, fired), f"slot {fired}")
        system.settled()
    digests = [job for job in system.jobs() if job.workflow == "daily_digest"]
    assert [(job.tenant_id, job.state, job.pattern) for job in digests] == [("acme", JobState.DONE, "service")] * 3
    for job in digests:
        principals = {(step.principal_id, step.state) for step in system.steps(job.id)}
        assert principals == {("acme.service", StepState.DONE)}
    assert len(system.sandbox("slack", "messages")) == 3
