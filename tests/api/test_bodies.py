"""Bodies that are no JSON, or that two could read as two."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from identity.agents.api_keys import Role
from pipeline.tables import jobs
from tests.api.agents_api import AgentsApi


def test_a_body_nested_beyond_reading_is_refused_like_one_that_is_no_json(sqlite_api: AgentsApi) -> None:
    deep = '{"identifier": "ada", "parameters": ' + "[" * 100_000 + "]" * 100_000 + "}"
    key = sqlite_api.keys["acme", Role.AGENT].reveal()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = sqlite_api.client.post("/v1/tools/github.Say/execute", data=deep, headers=headers)
    assert (answer.status_code, json.loads(answer.data)["type"]) == (400, "urn:aswhom:problem:not-json")


@pytest.mark.parametrize(
    "body",
    [
        '{"identifier": "ada", "identifier": "acme", "parameters": {"text": "hello"}}',
        '{"identifier": "ada", "parameters": {"text": "hello", "te\\u0078t": "else"}}',
    ],
)
def test_a_member_that_stands_in_the_body_twice_is_refused(sqlite_api: AgentsApi, body: str) -> None:
    headers = {"Authorization": f"Bearer {sqlite_api.keys['acme', Role.AGENT].reveal()}"}
    answer = sqlite_api.client.post(
        "/v1/tools/github.Say/execute", data=body, headers=headers, content_type="application/json"
    )
    assert (answer.status_code, json.loads(answer.data)["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "more than once" in json.loads(answer.data)["detail"]
    assert sqlite_api.database.read(lambda c: c.execute(select(jobs.c.id)).all()) == []


@pytest.mark.parametrize("content", ["application/json", None])
def test_who_sends_no_body_is_told_what_to_send(sqlite_api: AgentsApi, content: str | None) -> None:
    headers = {"Authorization": f"Bearer {sqlite_api.keys['acme', Role.AGENT].reveal()}"}
    headers |= {"Content-Type": content} if content else {}
    answer = sqlite_api.client.post("/v1/jobs/job_1/cancel", headers=headers)
    assert answer.status_code == (400 if content else 415)
    assert "{}" in json.loads(answer.data)["detail"]
