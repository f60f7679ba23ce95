"""A schedule that two beats keep, and what every process tells Prometheus."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import update

from pipeline.states import JobState, StepState
from pipeline.tables import schedules, slots
from tests.servers.process import free_port
from tests.system.conftest import Start
from tests.system.rig import System


def _make_due(system: System, tenant: str) -> None:
    due = update(schedules).where(schedules.c.tenant_id == tenant)
    slot = datetime.now(UTC) - timedelta(seconds=1)
    system.runtime.database.write(lambda c: c.execute(due.values(next_at=slot)).rowcount)


def _fired(system: System, number: int) -> bool:
    return system.count(slots) == number


def test_two_beats_fire_a_slot_once_and_the_digest_runs_as_the_service(start_system: Start) -> None:
    system = start_system(ASWHOM_BEAT_INTERVAL="0.1")
    system.start("web", "worker", "housekeeping", "beat", "beat-2")
    system.connect("acme", "ada")
    system.pull("acme/shop", "ada")
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


def test_every_process_exports_what_it_counts(start_system: Start) -> None:
    names = ("WORKER", "REVOCATIONS", "HOUSEKEEPING", "BEAT")
    ports = {name: free_port() for name in names}
    system = start_system(**{f"ASWHOM_{name}_METRICS_PORT": str(port) for name, port in ports.items()})
    system.start("web", "worker-1", "revocations", "housekeeping", "beat")
    system.connect("acme", "ada")
    system.pull("acme/shop", "ada", "bug")
    system.wait(system.jobs, "an accepted job")
    system.settled()
    system.order("github", "authorizations/revoke", user="ada")

    def scraped(name: str) -> dict[str, float]:
        url = f"{system.web}/metrics" if name == "WEB" else f"http://127.0.0.1:{ports[name]}/metrics"
        text = system.http.get(url).text
        assert not re.search(r'="(acme|globex|ada|grace|job_|acc_|rev_)', text), (
            "a label names a tenant, a user or a job"
        )
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {series: float(value) for series, _, value in samples}

    step = 'aswhom_steps_total{action="github.Comment",outcome="done",pattern="delegated"}'
    assert scraped("WORKER")[step] == 1
    assert scraped("WORKER")['aswhom_jobs_finished_total{outcome="done",pattern="hybrid"}'] == 1
    assert scraped("WEB")['aswhom_webhooks_total{outcome="accepted",source="github"}'] == 1
    assert any(series.startswith("aswhom_refreshes_total") for series in scraped("WORKER"))
    system.wait(lambda: scraped("REVOCATIONS").get("aswhom_revocation_seconds_count") == 1, "a revocation's seconds")
    system.wait(lambda: 'aswhom_queue_depth{pattern="hybrid"}' in scraped("HOUSEKEEPING"), "the queue's depth")
    assert "aswhom_beat_slots_total" in scraped("BEAT")
