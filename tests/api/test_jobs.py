"""Jobs that agents end, and that admins bring back."""

from __future__ import annotations

from typing import Any

import pytest

from identity.api_keys import Role
from identity.model import Scope, ScopeKind
from pipeline.ledger.requests import NotLetIn
from tests.api.town import Town


def post(town: Town, job: str, verb: str, role: Role = Role.ADMIN, *, tenant: str = "acme") -> Any:
    return town.ask("POST", f"/v1/jobs/{job}/{verb}", town.keys[tenant, role], json={})


def test_a_job_is_cancelled_and_replayed(town: Town) -> None:
    job = town.execute().json["job"]["id"]
    cancelled = post(town, job, "cancel", Role.AGENT)
    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")
    again = post(town, job, "cancel")
    assert (again.status_code, "already" in again.json["detail"]) == (422, True)
    town.ring.rung.clear()
    replayed = post(town, job, "replay")
    assert (replayed.status_code, replayed.json["state"]) == (202, "queued")
    replayed.close()
    assert town.ring.rung == [job]
    assert post(town, job, "replay").status_code == 422


def test_a_job_that_runs_stops_at_its_next_step(town: Town) -> None:
    job = town.execute().json["job"]["id"]
    town.house.claim(job)
    assert post(town, job, "cancel").json["state"] == "stopping"


def test_another_tenants_or_agents_job_is_not_there(town: Town) -> None:
    job = town.execute().json["job"]["id"]
    for verb in ("cancel", "replay"):
        assert post(town, job, verb, tenant="globex").status_code == 404
    other = town.key(agent="other")
    assert town.ask("POST", f"/v1/jobs/{job}/cancel", other, json={}).status_code == 404


def test_a_key_that_ended_before_the_commit_changes_nothing(town: Town) -> None:
    job, who = town.execute().json["job"]["id"], town.caller(town.keys["acme", Role.ADMIN])
    town.revoke(Scope(kind=ScopeKind.AGENT, key=who.agent))
    state = town.house.row(job).state
    for change in (town.requests.cancel, town.requests.replay):
        with pytest.raises(NotLetIn):
            change(who, job, now=town.now())
    assert town.house.row(job).state == state


def test_no_job_is_in_a_state_that_there_is_not(town: Town) -> None:
    town.execute()
    answer = town.ask("GET", "/v1/jobs?state=nonsense")
    assert (answer.status_code, answer.json["items"]) == (200, [])
    assert len(town.ask("GET", "/v1/jobs?state=queued").json["items"]) == 1
