"""The demo's nights: no schedule fires into the story by the time of day, and the one that it calls for does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deploy.demo import nights
from tests.tasks.in_process_system import InProcessSystem


def test_no_schedule_fires_by_itself_and_a_night_comes_when_it_is_told(system: InProcessSystem) -> None:
    fire, database = system.runtime.schedules.fire_due, system.runtime.database
    now = datetime.now(UTC)
    nights.hold_back(database)
    assert fire(now + timedelta(days=2)) == []
    with nights.night(database, "acme:billing_reconciliation", now=now):
        assert len(fire(now)) == 1
    with (
        pytest.raises(RuntimeError, match="the story"),
        nights.night(database, "acme:billing_reconciliation", now=now + timedelta(days=1)),
    ):
        raise RuntimeError("the story fails")
    assert fire(now + timedelta(days=2)) == []
    assert [(job.tenant_id, job.workflow) for job in system.jobs()] == [("acme", "billing_reconciliation")]
