"""Jobs that agents end, and that admins bring back."""

from __future__ import annotations

from typing import Any

import pytest

from identity.api_keys import Role
from identity.model import Scope, ScopeKind
from pipeline.ledger.requests import NotLetIn
from tests.api.agents_api import AgentsApi


def post(api: AgentsApi, job: str, verb: str, role: Role = Role.ADMIN, *, tenant: str = "acme") -> Any:
    return api.ask("POST", f"/v1/jobs/{job}/{verb}", api.keys[tenant, role], json={})


def test_a_job_is_cancelled_and_replayed(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    cancelled = post(api, job, "cancel", Role.AGENT)
    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")
    again = post(api, job, "cancel")
    assert (again.status_code, "already" in again.json["detail"]) == (422, True)
    api.ring.rung.clear()
    replayed = post(api, job, "replay")
    assert (replayed.status_code, replayed.json["state"]) == (202, "queued")
    replayed.close()
    assert api.ring.rung == [job]
    assert post(api, job, "replay").status_code == 422


def test_a_job_that_runs_stops_at_its_next_step(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    api.house.claim(job)
    assert post(api, job, "cancel").json["state"] == "stopping"


def test_another_tenants_or_agents_job_is_not_there(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    for verb in ("cancel", "replay"):
        assert post(api, job, verb, tenant="globex").status_code == 404
    other = api.key(agent="other")
    assert api.ask("POST", f"/v1/jobs/{job}/cancel", other, json={}).status_code == 404


def test_a_key_that_ended_before_the_commit_changes_nothing(api: AgentsApi) -> None:
    job, who = api.execute().json["job"]["id"], api.caller(api.keys["acme", Role.ADMIN])
    api.revoke(Scope(kind=ScopeKind.AGENT, key=who.agent))
    state = api.house.row(job).state
    for change in (api.requests.cancel, api.requests.replay):
        with pytest.raises(NotLetIn):
            change(who, job, now=api.now())
    assert api.house.row(job).state == state


def test_no_job_is_in_a_state_that_there_is_not(api: AgentsApi) -> None:
    api.execute()
    answer = api.ask("GET", "/v1/jobs?state=nonsense")
    assert (answer.status_code, answer.json["items"]) == (200, [])
    assert len(api.ask("GET", "/v1/jobs?state=queued").json["items"]) == 1
