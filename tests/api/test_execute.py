"""Executing a tool: as whom, once a key, and with an answer that says how it went."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update

from identity.api_keys import Role
from identity.audit.tables import audit
from identity.connections import add_connection, get_connection
from identity.installations import add_installation
from identity.model import Credential, PrincipalKind, Scope, ScopeKind
from identity.principals import ensure_principal
from identity.tables import accounts
from pipeline.ledger import jobs as ledger_jobs
from pipeline.ledger.requests import NotLetIn
from pipeline.requests import Keyed
from pipeline.states import Wait
from pipeline.tables import jobs
from tests.api.town import Town
from tests.ledger.house import Say
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE


def count(town: Town) -> int:
    return town.database.read(lambda c: c.execute(select(func.count()).select_from(jobs)).scalar_one())


@pytest.mark.parametrize(
    ("identifier", "pattern", "user"),
    [
        ("ada", "delegated", "acme.ada"),
        ("acme.ada", "delegated", "acme.ada"),
        ("user:ada", "delegated", "acme.ada"),
        ("acme", "service", None),
        ("tenant:acme", "service", None),
        ("installation-acme", "service", None),
        ("workspace:installation-acme", "service", None),
    ],
)
def test_the_identifier_decides_as_whom(sqlite_town: Town, identifier: str, pattern: str, user: str | None) -> None:
    answer = sqlite_town.execute(identifier)
    assert answer.status_code == 202, answer.text
    row = sqlite_town.house.row(answer.json["job"]["id"])
    assert (row.pattern, row.user_id, row.agent_id) == (pattern, user, "acme.bot")


@pytest.mark.parametrize(
    "identifier", ["grace", "globex", "globex.ada", "installation-globex", "user:acme", "tenant:ada", "workspace:"]
)
def test_an_identifier_of_nobody_here_is_refused_and_stores_nothing(sqlite_town: Town, identifier: str) -> None:
    answer = sqlite_town.execute(identifier)
    assert (answer.status_code, answer.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert count(sqlite_town) == 0


def test_an_identifier_that_could_be_two_is_refused_until_it_says_which(sqlite_town: Town) -> None:
    town = sqlite_town
    named = partial(ensure_principal, id="acme.acme", tenant="acme", kind=PrincipalKind.USER, name="acme")
    town.database.write(partial(named, now=town.now()))
    refused = town.execute("acme")
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "could be several" in refused.json["detail"]
    assert count(town) == 0
    for identifier, user in (("user:acme", "acme.acme"), ("tenant:acme", None)):
        answer = town.execute(identifier)
        assert answer.status_code == 202, answer.text
        assert town.house.row(answer.json["job"]["id"]).user_id == user


def test_a_workspace_of_another_connection_is_refused(sqlite_town: Town) -> None:
    town = sqlite_town
    other = replace(town.database.read(lambda c: get_connection(c, "gh")), id="other", provider="slack")

    def install(c: Connection) -> None:
        add_connection(c, other, now=town.now())
        add_installation(c, owner="other", external_id="elsewhere", tenant="acme", now=town.now())

    town.database.write(install)
    refused = town.execute("workspace:elsewhere")
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "is reached by other, and this tool goes through gh" in refused.json["detail"]
    assert count(town) == 0


def test_a_workspace_that_the_service_does_not_act_in_is_refused(sqlite_town: Town) -> None:
    town = sqlite_town
    acts_in = update(accounts).where(accounts.c.principal_id == "acme.service")

    def move(workspace: str) -> None:
        moved = acts_in.values(credential=Credential.INSTALLATION, external_id=workspace)
        town.database.write(lambda c: c.execute(moved).rowcount)

    move("installation-of-another")
    refused = town.execute("workspace:installation-acme")
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "acts in workspace installation-of-another through gh" in refused.json["detail"]
    assert count(town) == 0
    move("installation-acme")
    assert town.execute("workspace:installation-acme").status_code == 202


def test_a_quick_tool_answers_with_its_result(town: Town) -> None:
    town.at_work = lambda: town.finish(next(iter(town.house.states())), result={"id": "7"})
    answer = town.execute(wait=5)
    assert answer.status_code == 200, answer.text
    assert (answer.json["outcome"], answer.json["result"]) == ("done", {"id": "7"})
    (step,) = answer.json["job"]["steps"]
    assert step["as_whom"] == {"kind": "user", "name": "ada"}
    assert town.ring.rung == [answer.json["job"]["id"]]


def test_a_long_one_answers_with_its_job_which_tells_the_rest(town: Town) -> None:
    answer = town.execute()
    assert (answer.status_code, answer.json["outcome"]) == (202, "pending")
    job = answer.headers["Location"]
    assert town.ask("GET", job).json["state"] == "queued"
    town.finish(answer.json["job"]["id"], result={"id": "7"})
    assert town.ask("GET", job).json["steps"][0]["result"] == {"id": "7"}


def test_the_same_key_makes_one_job_and_tells_of_it_again(town: Town) -> None:
    first = town.execute(Idempotency_Key="k-1")
    town.finish(first.json["job"]["id"], result={"id": "7"})
    again = town.execute(Idempotency_Key="k-1", wait=3)
    assert (again.status_code, again.json["job"]["id"]) == (200, first.json["job"]["id"])
    assert count(town) == 1


def test_a_job_remembers_the_request_it_came_from(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="webhooks.api.access"):
        first, again = (town.execute(Idempotency_Key="k-1") for _ in range(2))
    job, request = first.json["job"]["id"], first.headers["Request-Id"]
    assert town.house.row(job).request_id == request != again.headers["Request-Id"]
    told = [(vars(record)["request"], vars(record)["job"]) for record in caplog.records]
    assert told == [(request, job), (again.headers["Request-Id"], job)]


def test_a_key_with_another_request_is_refused(town: Town) -> None:
    town.execute(Idempotency_Key="k-1")
    for other in (town.execute(Idempotency_Key="k-1", text="other"), town.execute("acme", Idempotency_Key="k-1")):
        assert (other.status_code, other.json["type"]) == (422, "urn:aswhom:problem:idempotency-key-reused")
    assert count(town) == 1


def test_a_key_belongs_to_its_agent_alone(town: Town) -> None:
    first = town.execute(Idempotency_Key="k-1")
    other = town.execute(Idempotency_Key="k-1", key=town.key(agent="other"))
    assert other.json["job"]["id"] != first.json["job"]["id"]
    assert town.execute(Idempotency_Key="k-1", key=town.key()).json["job"]["id"] == first.json["job"]["id"]


def test_parameters_that_do_not_fit_are_told_of_without_what_was_sent(sqlite_town: Town) -> None:
    body = {"identifier": "ada", "parameters": {"text": ["canary"], "more": "canary"}}
    answer = sqlite_town.ask("POST", "/v1/tools/github.Say/execute", json=body)
    assert answer.status_code == 422
    assert {error["where"] for error in answer.json["errors"]} == {"parameters.text", "parameters.more"}
    assert "canary" not in answer.text
    assert count(sqlite_town) == 0


def test_a_body_nested_beyond_reading_is_refused_like_one_that_is_no_json(sqlite_town: Town) -> None:
    deep = '{"identifier": "ada", "parameters": ' + "[" * 100_000 + "]" * 100_000 + "}"
    key = sqlite_town.keys["acme", Role.AGENT].reveal()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = sqlite_town.client.post("/v1/tools/github.Say/execute", data=deep, headers=headers)
    assert (answer.status_code, json.loads(answer.data)["type"]) == (400, "urn:aswhom:problem:not-json")


def test_a_key_covers_the_tools_it_names(sqlite_town: Town) -> None:
    narrow = sqlite_town.key(tools=["linear.*"])
    assert sqlite_town.execute(key=narrow).status_code == 404
    assert sqlite_town.ask("GET", "/v1/tools", narrow).json == {"tools": []}
    assert sqlite_town.execute(key=sqlite_town.key(tools=["github.S*"])).status_code == 202


def test_a_revoked_agent_has_its_jobs_found(town: Town) -> None:
    job = town.execute().json["job"]["id"]
    made = town.revoke(Scope(kind=ScopeKind.AGENT, key="acme.bot"))
    assert town.revoker.advance(made)
    shown = town.ask("GET", f"/v1/jobs/{job}", town.keys["acme", Role.READER])
    assert shown.status_code == 401  # that key is the same agent's
    assert town.house.row(job).state == "cancelled"


def test_a_request_is_on_record_with_the_key_it_came_by(town: Town) -> None:
    job = town.execute().json["job"]["id"]
    row = town.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "tool.requested")).one())
    assert (row.job_id, row.agent_id, row.on_behalf_of) == (job, "acme.bot", "acme.ada")
    assert row.detail["key"].startswith("key_")


def test_nobody_waits_for_a_job_that_waits_for_a_person(town: Town) -> None:
    def park() -> None:
        (job,) = town.house.states()
        claimed = town.house.claim(job)
        expires = timedelta(hours=1)
        town.database.write(
            lambda c: ledger_jobs.park(
                c,
                claimed,
                Wait.CONSENT,
                waits_for="x",
                due_in=expires,
                expires_in=expires,
                reason="ada must connect github",
            )
        )

    town.at_work = park
    answer = town.execute(wait=20)
    assert (answer.status_code, answer.json["outcome"]) == (202, "needs_consent")
    assert answer.json["reason"] == "ada must connect github"


def test_more_than_so_many_do_not_wait(sqlite_town: Town) -> None:
    taken: list[Any] = []
    for _ in range(12):
        assert sqlite_town.requests._waiting.acquire(blocking=False)
    sqlite_town.at_work = lambda: taken.append("waited")
    assert sqlite_town.execute(wait=20).status_code == 202
    assert taken == []


def test_a_key_that_comes_at_once_from_many_makes_one_job(town: Town) -> None:
    action, who = Say(text="hello"), town.caller()
    keyed = Keyed(key="k-1", document={"text": "hello"})
    ask = partial(town.requests.execute, who, action, keyed, identifier="ada", request="req_1", now=town.now())
    with ThreadPoolExecutor(8) as many:
        made = [future.result() for future in [many.submit(ask) for _ in range(8)]]
    assert len({one.id for one in made}) == 1
    assert [one.repeated for one in made].count(False) == 1
    assert count(town) == 1


def test_a_caller_whose_key_ended_meanwhile_has_nothing_accepted(town: Town) -> None:
    who = town.caller()
    town.revoke(Scope(kind=ScopeKind.AGENT, key="acme.bot"))
    with pytest.raises(NotLetIn):
        town.requests.execute(
            who, Say(text="x"), Keyed(key=None, document={}), identifier="ada", request="req_1", now=town.now()
        )
    assert count(town) == 0
