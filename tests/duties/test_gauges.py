"""Gauges of the ledger: what is due, waits, is dead, unknown or unsealed, and zero again when it is not."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, select, update

from identity import audit
from identity.accounts.scopes import remember_stop
from identity.audit import AsWhom
from identity.audit.sealer import Sealer
from identity.connections.registry import pause_connection, resume_connection
from identity.errors import Unavailable
from identity.keys.signing import Signer
from identity.model import AccessPattern, Scope, ScopeKind
from identity.sql.store import Store
from identity.tables import provider_connections
from pipeline.authoring.timetable import Timetable
from pipeline.duties import gauges
from pipeline.duties.retention import prune_steps
from pipeline.jobs import claims
from pipeline.model import BEAT
from pipeline.revocation.tables import revocations
from pipeline.revoker.due_withdrawals import measure_withdrawals
from pipeline.run import Run
from pipeline.schedules import punctuality
from pipeline.schedules.changes import NewSchedule, add_schedule
from pipeline.states import AttemptState, StepState, Wait
from pipeline.steps import openings
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs as jobs_table
from pipeline.tables import schedules
from pipeline.views import troubles
from pipeline.views.overview import overview
from pipeline.workflow import SERVICE, NoConfig, Tick, workflow
from tests.docs.pages import ROOT
from tests.heartbeats import ticked
from tests.ledger.acts import close, revoke
from tests.ledger.house import House, Say, intent_of
from tests.ledger.plans import kept_plans, plans
from tests.ledger.revokers import quiet_revoker

NOW = datetime.now(UTC)


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"aswhom_{name}", labels)


def test_a_dead_job_is_counted_until_somebody_replays_it(house: House) -> None:
    job = house.job()
    claimed = house.claim(job)
    spend = partial(claims.spend_run, job=job, fence=claimed.fence, limit=1, delay=timedelta(), reason="a bug")
    house.database.write(spend)
    gauges.measure(house.database)
    assert (gauge("jobs_dead", pattern="hybrid"), gauge("jobs_dead", pattern="service")) == (1, 0)
    house.database.write(partial(replay_job, job=job, by="test", at=datetime.now(UTC)))
    gauges.measure(house.database)
    assert (gauge("jobs_dead", pattern="hybrid"), gauge("queue_depth", pattern="hybrid")) == (0, 1)


def test_a_dead_job_that_retention_has_forgotten_is_counted_no_more(house: House) -> None:
    job = house.job()
    house.database.write(partial(claims.bury, job=house.claim(job), reason="a bug"))
    gauges.measure(house.database)
    assert gauge("jobs_dead", pattern="hybrid") == 1
    house.database.write(partial(prune_steps, before=datetime.now(UTC) + timedelta(days=1), ids=[job]))
    gauges.measure(house.database)
    assert gauge("jobs_dead", pattern="hybrid") == 0


@pytest.mark.parametrize(
    "read",
    [troubles.look, partial(overview, of=None, now=NOW), partial(overview, of=["acme", "b"], now=NOW)],
    ids=["the gauge", "the overview", "the overview of tenants"],
)
def test_dead_jobs_are_counted_without_those_that_retention_has_forgotten(
    house: House, read: Callable[[Connection], object]
) -> None:
    """There are ever more of these, and the gauge is read all day."""
    told: Collection[str] = plans(house.database, read)
    if house.database.engine.dialect.name == "postgresql":  # which reads a small table from end to end
        told = kept_plans(house.database, lambda: house.database.read(read)).values()
    assert any("ix_jobs_dead" in plan for plan in told), "\n\n".join(told)


def test_the_oldest_job_that_is_due_has_its_age_shown_by_pattern(house: House) -> None:
    old, older, ahead = house.job(), house.job(), house.job()
    for job, ago in ((old, 60), (older, 600), (ahead, -600)):
        due = update(jobs_table).where(jobs_table.c.id == job).values(due_at=datetime.now(UTC) - timedelta(seconds=ago))
        house.database.write(partial(Connection.execute, statement=due))

    def ages() -> dict[str, float]:
        gauges.measure(house.database)
        return {pattern: gauge("oldest_due_seconds", pattern=pattern) or 0 for pattern in AccessPattern}

    aged = ages()
    assert 600 <= aged.pop("hybrid") < 660
    assert set(aged.values()) == {0}
    house.claim(older)
    assert 60 <= ages()["hybrid"] < 600
    house.claim(old)
    assert set(ages().values()) == {0}


def test_jobs_that_wait_are_counted_by_what_they_wait_for(house: House) -> None:
    hour = timedelta(hours=1)
    park = partial(claims.park, wait=Wait.CONSENT, waits_for="account:x", due_in=hour, expires_in=hour, reason="ada")
    house.database.write(partial(park, job=house.claim(house.job())))
    gauges.measure(house.database)
    assert {wait: gauge("jobs_waiting", wait=str(wait)) for wait in Wait} == {
        wait: float(wait is Wait.CONSENT) for wait in Wait
    }


def test_a_call_without_an_answer_is_counted_until_it_is_resolved(house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    house.database.write(partial(openings.open_attempt, intent=asked))
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    gauges.measure(house.database)
    assert gauge("attempts_unknown") == 1
    close(house, asked, AttemptState.EFFECT, StepState.DONE, result={"id": "1"}, external_id="1")
    gauges.measure(house.database)
    assert gauge("attempts_unknown") == 0


def test_connections_that_are_paused_are_counted_until_they_are_resumed(house: House) -> None:
    """A paused one asks its provider for nothing, so no counter goes on. The console's overview names the same."""

    def shown() -> tuple[float | None, float | None]:
        gauges.measure(house.database)
        of_github = gauge("connections_paused", provider="github")
        assert of_github == len(house.database.read(partial(overview, of=None, now=NOW))[None].paused)
        return of_github, gauge("connections_paused", provider="slack")

    assert shown() == (0, 0)
    (owner,) = house.database.read(lambda c: c.execute(select(provider_connections.c.id)).scalars().all())
    house.database.write(partial(pause_connection, owner=owner, reason="invalid_client"))
    assert shown() == (1, 0)
    stopped = Scope(kind=ScopeKind.CONNECTION, key=owner)
    # Maybe for good: nobody is to act for it.
    house.database.write(partial(remember_stop, scope=stopped, stopped=True))
    assert shown() == (0, 0)
    house.database.write(partial(remember_stop, scope=stopped, stopped=False))
    assert shown() == (1, 0)
    house.database.write(partial(resume_connection, owner=owner))
    assert shown() == (0, 0)


def test_the_oldest_unsealed_record_has_its_age_shown_until_it_is_sealed(house: House) -> None:
    now = datetime.now(UTC)
    house.database.write(
        partial(audit.record, kind="test", whom=AsWhom(tenant="acme"), id="aud_old", at=now - timedelta(minutes=5))
    )
    gauges.measure(house.database)
    assert (gauge("audit_unsealed_seconds") or 0) >= 300
    while Sealer(house.database, Signer.from_seed(b"k" * 32)).seal(now=now):
        pass
    gauges.measure(house.database)
    assert gauge("audit_unsealed_seconds") == 0


def test_the_oldest_revocation_without_a_receipt_has_its_age_shown_until_it_has_one(house: House) -> None:
    def shown() -> float:
        gauges.measure(house.database)
        return gauge("revocation_unfinished_seconds") or 0

    assert shown() == 0
    old, new = (revoke(house, Scope(kind=ScopeKind.USER, key=user)) for user in ("ada", "grace"))
    ago = update(revocations).where(revocations.c.id == old)
    house.database.write(
        partial(Connection.execute, statement=ago.values(effective_at=datetime.now(UTC) - timedelta(hours=1)))
    )
    assert 3600 <= shown() < 3660
    assert quiet_revoker(house.database, Signer.from_seed(b"k" * 32)).advance(old)
    assert shown() < 60
    assert quiet_revoker(house.database, Signer.from_seed(b"k" * 32)).advance(new)
    assert shown() == 0


def test_revocations_that_have_their_receipt_are_not_looked_through(house: House) -> None:
    """They are kept for years, and the gauge is read all day."""
    told: Collection[str] = plans(house.database, troubles.look)
    if house.database.engine.dialect.name == "postgresql":
        told = kept_plans(house.database, lambda: house.database.read(troubles.look)).values()
    assert any("ix_revocations_unfinished" in plan for plan in told), told
    assert not any("ix_revocations_effective" in plan for plan in told), told


@pytest.mark.parametrize(
    ("measure", "shows"),
    [
        (gauges.measure, partial(gauge, "queue_depth", pattern="hybrid")),
        (gauges.measure, partial(gauge, "audit_unsealed_seconds")),
        (punctuality.measure, partial(gauge, "beat_silent_seconds")),
        (measure_withdrawals, partial(gauge, "withdrawals", state="stuck")),
    ],
    ids=["jobs", "the audit", "schedules", "withdrawals"],
)
def test_what_cannot_be_measured_shows_no_number_until_it_can(
    house: House, measure: Callable[[Store], None], shows: Callable[[], float | None]
) -> None:
    """The last number would pass for what holds now."""

    class Away:
        def read(self, _fn: object) -> object:
            raise Unavailable("no ledger")

    measure(house.database)
    assert math.isfinite(shows() or 0)
    with pytest.raises(Unavailable):
        measure(cast("Store", Away()))
    assert math.isnan(shows() or 0)
    measure(house.database)
    assert math.isfinite(shows() or 0)


def test_a_process_that_measures_nothing_shows_no_number() -> None:
    """A 0 would pass for what holds now where nobody can measure. In a new process, since this one has measured."""
    show = "import identity.metrics, pipeline.metrics, prometheus_client as p; print(p.generate_latest().decode())"
    shown = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    declared = re.findall(r"^# TYPE (aswhom_\w+)(?<!_created) gauge$", shown, re.MULTILINE)
    told = dict(re.findall(r"^(aswhom_\w+) (\S+)$", shown, re.MULTILINE))  # those without labels
    numbers = {name: told[name] for name in declared if name in told}
    assert {"aswhom_revocation_unfinished_seconds", "aswhom_keepalive_lag_seconds"} <= numbers.keys()
    assert set(numbers.values()) == {"NaN"}


@workflow(agent="tester", uses={Say: SERVICE})
def hourly(run: Run[NoConfig], event: Tick) -> None:
    """It is not run here."""


def test_a_beat_that_is_silent_and_schedules_that_are_late_or_faulty_are_measured(house: House) -> None:
    now = datetime.now(UTC).replace(microsecond=0)

    def measured() -> tuple[float | None, float | None, float | None]:
        punctuality.measure(house.database)
        return gauge("beat_silent_seconds"), gauge("schedule_late_seconds"), gauge("schedules_faulty")

    def about(*seconds: float) -> Any:
        return pytest.approx(seconds, abs=30)  # by the ledger's clock

    assert measured() == (0, 0, 0)  # nothing is to be fired
    wanted = NewSchedule(tenant="acme", name="hourly", workflow=hourly, timetable=Timetable(cron="0 * * * *"))
    house.database.write(partial(add_schedule, wanted=wanted, now=now))
    assert measured() == about(math.inf, 0, 0)
    ticked(house.database, BEAT, at=now - timedelta(hours=1))
    assert measured() == about(3600, 0, 0)

    def change(**values: object) -> None:
        house.database.write(lambda c: c.execute(update(schedules).values(**values)).rowcount)

    change(next_at=now - timedelta(minutes=2))
    assert measured() == about(3600, 120, 0)
    change(fault="its workflow is gone")
    assert measured() == about(3600, 0, 1)
    change(paused=True)
    assert measured() == (0, 0, 0)  # nobody misses a beat that was ended with them
