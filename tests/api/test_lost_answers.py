"""A ledger that is away once it has committed: whoever asked is told what was done, and it is rung for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select

from identity.agents.api_keys import Role
from pipeline.db.database import Database
from pipeline.revocation.tables import revocations
from pipeline.states import JobState
from pipeline.tables import jobs
from tests.api.agents_api import AgentsApi
from tests.leaving import Leaving

ADMIN = Role.ADMIN


@pytest.fixture
def leaving(database: Database) -> Leaving:
    return Leaving(database)


@pytest.fixture
def api(leaving: Leaving) -> Iterator[AgentsApi]:
    built = AgentsApi(leaving)
    yield built
    built.close()


def _count(api: AgentsApi, table: Any) -> int:
    return api.database.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar_one())


@pytest.mark.parametrize("wait", [0, 5])
def test_a_tool_that_was_accepted_is_pending_and_has_its_address(api: AgentsApi, leaving: Leaving, wait: int) -> None:
    leaving.leaves = True
    answer = api.execute(wait=wait)
    leaving.back()
    assert (answer.status_code, answer.json["outcome"]) == (202, "pending")
    job = answer.json["job"]["id"]
    assert answer.headers["Location"] == f"/v1/jobs/{job}"
    assert (_count(api, jobs), api.ring.rung) == (1, [job])


def test_a_tool_that_was_asked_for_before_is_told_as_it_stands(api: AgentsApi, leaving: Leaving) -> None:
    job = api.execute(Idempotency_Key="k-1").json["job"]["id"]
    api.finish(job, result={"id": "7"})
    leaving.leaves = True
    again = api.execute(Idempotency_Key="k-1")
    assert (again.status_code, again.json["result"], again.json["job"]["id"]) == (200, {"id": "7"}, job)


def test_a_revocation_that_is_effective_is_told_and_rung_for(api: AgentsApi, leaving: Leaving) -> None:
    leaving.leaves = True
    body = {"kind": "user", "key": "ada", "reason": "she left"}
    answer = api.ask("POST", "/v1/revocations", api.keys["acme", ADMIN], json=body)
    answer.close()
    leaving.back()
    assert (answer.status_code, answer.json["state"]) == (201, "effective")
    assert (_count(api, revocations), api.ring.rung) == (1, [answer.json["id"]])


def test_a_job_that_was_ended_and_accepted_anew_is_told_and_rung_for(api: AgentsApi, leaving: Leaving) -> None:
    job, key = api.execute().json["job"]["id"], api.keys["acme", ADMIN]
    api.ring.rung.clear()
    for verb, said in (("cancel", (200, JobState.CANCELLED)), ("replay", (202, JobState.QUEUED))):
        leaving.leaves = True
        answer = api.ask("POST", f"/v1/jobs/{job}/{verb}", key, json={})
        answer.close()
        leaving.back()
        assert (answer.status_code, answer.json["state"]) == said
    assert api.ring.rung == [job]


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "once"}])
def test_a_job_whose_end_was_not_confirmed_is_ended_once_and_told(
    api: AgentsApi, leaving: Leaving, key: dict[str, str]
) -> None:
    job, admin = api.execute().json["job"]["id"], api.keys["acme", ADMIN]
    leaving.loses_a_commit = True
    answer = api.ask("POST", f"/v1/jobs/{job}/cancel", admin, json={}, headers=key)
    assert (answer.status_code, answer.json["state"]) == (200, "cancelled")
    assert (leaving.loses_a_commit, api.acts()) == (False, ["job.cancelled"])


def test_a_replay_that_was_not_confirmed_is_done_once_and_told_where_it_has_a_key(
    api: AgentsApi, leaving: Leaving
) -> None:
    job, admin = api.execute().json["job"]["id"], api.keys["acme", ADMIN]
    for key, status in (({"Idempotency-Key": "once"}, 202), ({}, 503)):
        api.ask("POST", f"/v1/jobs/{job}/cancel", admin, json={})
        leaving.loses_a_commit = True
        answer = api.ask("POST", f"/v1/jobs/{job}/replay", admin, json={}, headers=key)
        assert (answer.status_code, api.house.row(job).state) == (status, "queued")
    assert api.acts() == ["job.cancelled", "job.replayed"] * 2
