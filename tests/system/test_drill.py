"""A restore that is tried: real processes on a copy that was marked, with the original's keys and all its tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select, update

from identity.audit import Act
from identity.hold import release_hold
from identity.tables import grants
from pipeline.desk.restored import mark_restored
from pipeline.intervals import RHYTHMS
from pipeline.model import BEAT
from pipeline.states import JobState
from pipeline.tables import heartbeats, schedules
from tests.servers.postgres import Postgres
from tests.system.conftest import Start
from tests.system.rig import SANDBOX, System

PROCESSES = ("worker", "revocations", "housekeeping", "beat")


def _requests(system: System) -> dict[str, int]:
    """How many each upstream, and the authorization servers, have had, by their own logs."""
    return {name: len(system.sandbox(name, "log")) for name in SANDBOX}


def _have_ticked(system: System, since: datetime, *, besides: frozenset[str] = frozenset()) -> bool:
    newest = select(heartbeats.c.duty, func.max(heartbeats.c.host_at).label("at")).group_by(heartbeats.c.duty)
    seen = {row.duty for row in system.rows(newest) if row.at > since}
    return {*RHYTHMS, BEAT} - besides <= seen


def _answer(system: System, made: str) -> str:
    receipt = system.receipt(made)
    assert receipt is not None
    return str(receipt["provider"]["answer"])


def _act(system: System, why: str) -> Act:
    return Act(audit_id=system.ids("aud"), by="test", now=datetime.now(UTC), why=why)


def _write(system: System, fn: Any) -> Any:
    return system.runtime.database.write(fn)


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_the_processes_of_a_marked_copy_present_nothing_and_take_what_comes_in(
    start_system: Start, request: pytest.FixtureRequest, database: str
) -> None:
    url = ""
    if database == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        url = cluster.url(cluster.create_database())
    system = start_system(url, ASWHOM_BEAT_INTERVAL="0.1")
    system.start("web")
    system.connect("acme", "ada")
    system.pull("acme/shop", "ada")  # open in the backup
    past = datetime.now(UTC) - timedelta(hours=2)
    renewed = update(grants).where(grants.c.refresh_sealed.is_not(None))
    _write(system, lambda c: c.execute(renewed.values(keepalive_due=past, expires_at=past)).rowcount)
    _write(system, lambda c: c.execute(update(schedules).values(next_at=past)).rowcount)
    _write(system, partial(mark_restored, act=_act(system, "a drill"), seen=0, lost=None, fire_missed=False))
    _write(system, lambda c: c.execute(update(schedules).values(next_at=past)).rowcount)  # one that fell due since
    before = _requests(system)
    assert before["auth"] > 0, "it tells of what is asked there"
    began = datetime.now(UTC)
    system.start(*PROCESSES)
    system.wait(partial(_have_ticked, system, began), "a tick of every duty, and of beat")
    made = system.revoke_and_ring(system.account("acme", "github", "ada"), "acme")
    system.wait(lambda: system.receipt(made), "the receipt")
    ticked = datetime.now(UTC)
    after = _requests(system)
    system.pull("acme/shop", "ada")
    again = partial(_have_ticked, system, ticked + timedelta(seconds=1), besides=frozenset({"catch-up"}))
    system.wait(again, "another tick of each but the one that comes once a minute")
    taken = _requests(system)
    assert after == before
    assert {name: taken[name] for name in SANDBOX if name != "github"} == {
        name: before[name] for name in SANDBOX if name != "github"
    }
    assert system.attempts() == []
    assert _answer(system, made) == "pending"
    states = {job.state for job in system.jobs()}
    assert states <= {JobState.QUEUED, JobState.CANCELLED}
    assert JobState.QUEUED in states
    _write(system, partial(release_hold, act=_act(system, "for the test's control")))
    system.settled()
    assert system.attempts() != []
    ended = partial(_answer, system, made)
    system.wait(lambda: ended() == "done", "that the provider is asked once it is released")
