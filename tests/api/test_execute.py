"""Executing a tool: as whom, once a key, and with an answer that says how it went."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from pydantic import create_model
from sqlalchemy import Connection, func, select, update

from identity.agents.api_keys import Caller, Role
from identity.audit import Act
from identity.audit.tables import audit
from identity.connections.installations import add_installation
from identity.connections.registry import add_connection, get_connection
from identity.hold import HELD_FOR_OTHERS, release_hold, set_hold
from identity.model import Credential, PrincipalKind, Scope, ScopeKind
from identity.principals import ensure_principal
from identity.tables import accounts
from pipeline.agents_api.callers import Keyed
from pipeline.agents_api.requests import NotLetIn
from pipeline.authoring.registry import Registry
from pipeline.jobs import claims as ledger_jobs
from pipeline.states import Wait
from pipeline.tables import jobs
from tests.api.agents_api import AgentsApi
from tests.ledger.house import Say, say_it
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE


def count(api: AgentsApi) -> int:
    return api.database.read(lambda c: c.execute(select(func.count()).select_from(jobs)).scalar_one())


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
def test_the_identifier_decides_as_whom(sqlite_api: AgentsApi, identifier: str, pattern: str, user: str | None) -> None:
    answer = sqlite_api.execute(identifier)
    assert answer.status_code == 202, answer.text
    row = sqlite_api.house.row(answer.json["job"]["id"])
    assert (row.pattern, row.user_id, row.agent_id) == (pattern, user, "acme.bot")


def test_a_key_of_some_users_acts_as_no_other_whatever_is_written(sqlite_api: AgentsApi) -> None:
    """An agent that serves Mallory, and is talked into it, writes Ada's name."""
    api = sqlite_api
    mallory = partial(ensure_principal, id="acme.mallory", tenant="acme", kind=PrincipalKind.USER, name="mallory")
    api.database.write(partial(mallory, now=api.now()))
    key = api.key(users=["mal*"])
    for identifier in ("ada", "acme.ada", "user:ada"):
        refused = api.execute(identifier, key=key)
        assert (refused.status_code, refused.json["type"]) == (403, "urn:aswhom:problem:not-allowed")
    assert count(api) == 0
    assert [api.execute(of, key=key).status_code for of in ("mallory", "acme")] == [202, 202]  # and the service


@pytest.mark.parametrize(
    "identifier", ["grace", "globex", "globex.ada", "installation-globex", "user:acme", "tenant:ada", "workspace:"]
)
def test_an_identifier_of_nobody_here_is_refused_and_stores_nothing(sqlite_api: AgentsApi, identifier: str) -> None:
    answer = sqlite_api.execute(identifier)
    assert (answer.status_code, answer.json["type"]) == (422, "urn:aswhom:problem:unknown-identifier")
    assert count(sqlite_api) == 0


class EndAll(Say):
    """It speaks in the platform's own name."""

    facts = replace(Say.facts, tool=False)


def test_what_workflows_alone_may_do_is_no_tool_whatever_the_key_covers(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    api.deploy(Registry([say_it], [EndAll]))
    key, body = api.key(tools=["github.*"]), {"identifier": "acme", "parameters": {"text": "Approved by ada."}}
    assert [tool["name"] for tool in api.ask("GET", "/v1/tools", key).json["tools"]] == ["github.Say"]
    for name in ("github.EndAll", "github__EndAll"):
        answers = [
            api.ask("GET", f"/v1/tools/{name}", key),
            api.ask("POST", f"/v1/tools/{name}/execute", key, json=body),
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
    assert count(api) == 0


def test_an_identifier_that_could_be_two_is_refused_until_it_says_which(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    named = partial(ensure_principal, id="acme.acme", tenant="acme", kind=PrincipalKind.USER, name="acme")
    api.database.write(partial(named, now=api.now()))
    refused = api.execute("acme")
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "could be several" in refused.json["detail"]
    assert count(api) == 0
    for identifier, user in (("user:acme", "acme.acme"), ("tenant:acme", None)):
        answer = api.execute(identifier)
        assert answer.status_code == 202, answer.text
        assert api.house.row(answer.json["job"]["id"]).user_id == user


def test_a_workspace_of_another_connection_is_refused(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    other = replace(api.database.read(lambda c: get_connection(c, "gh")), id="other", provider="slack")

    def install(c: Connection) -> None:
        add_connection(c, other, now=api.now())
        add_installation(c, owner="other", external_id="elsewhere", tenant="acme", now=api.now())

    api.database.write(install)
    refused = api.execute("workspace:elsewhere")
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "is reached by other, and this tool goes through gh" in refused.json["detail"]
    assert count(api) == 0


def test_a_workspace_that_the_service_does_not_act_in_is_refused(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    acts_in = update(accounts).where(accounts.c.principal_id == "acme.service")

    def move(workspace: str) -> None:
        moved = acts_in.values(credential=Credential.INSTALLATION, external_id=workspace)
        api.database.write(lambda c: c.execute(moved).rowcount)

    move("installation-of-another")
    refused = api.execute("workspace:installation-acme")
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "acts in workspace installation-of-another through gh" in refused.json["detail"]
    assert count(api) == 0
    move("installation-acme")
    assert api.execute("workspace:installation-acme").status_code == 202


def test_a_quick_tool_answers_with_its_result(api: AgentsApi) -> None:
    api.at_work = lambda: api.finish(next(iter(api.house.states())), result={"id": "7"})
    answer = api.execute(wait=5)
    assert answer.status_code == 200, answer.text
    assert (answer.json["outcome"], answer.json["result"]) == ("done", {"id": "7"})
    (step,) = answer.json["job"]["steps"]
    assert step["as_whom"] == {"kind": "user", "name": "ada"}
    assert api.ring.rung == [answer.json["job"]["id"]]


def test_a_long_one_answers_with_its_job_which_tells_the_rest(api: AgentsApi) -> None:
    answer = api.execute()
    assert (answer.status_code, answer.json["outcome"]) == (202, "pending")
    job = answer.headers["Location"]
    assert api.ask("GET", job).json["state"] == "queued"
    api.finish(answer.json["job"]["id"], result={"id": "7"})
    told = api.ask("GET", job).json
    assert (told["result"], told["steps"][0]["result"]) == ({"id": "7"}, None)


def test_a_job_that_waits_for_a_holds_end_says_so_and_not_who_holds_it(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    act = Act(audit_id="hold", by="cli:root", now=api.now(), why="a restore of 02:00")
    api.database.write(partial(set_hold, act=act))
    answer = api.execute()
    assert (answer.status_code, answer.json["outcome"]) == (202, "pending")
    assert answer.json["reason"] == answer.json["job"]["reason"] == HELD_FOR_OTHERS
    job = answer.json["job"]["id"]
    assert api.ask("GET", f"/v1/jobs/{job}").json["reason"] == HELD_FOR_OTHERS
    assert [one["reason"] for one in api.ask("GET", "/v1/jobs").json["items"]] == [HELD_FOR_OTHERS]
    api.database.write(partial(release_hold, act=replace(act, audit_id="release")))
    assert api.ask("GET", f"/v1/jobs/{job}").json["reason"] is None
    assert [one["reason"] for one in api.ask("GET", "/v1/jobs").json["items"]] == [None]


def test_the_same_key_makes_one_job_and_tells_of_it_again(api: AgentsApi) -> None:
    first = api.execute(Idempotency_Key="k-1")
    api.finish(first.json["job"]["id"], result={"id": "7"})
    again = api.execute(Idempotency_Key="k-1", wait=3)
    assert (again.status_code, again.json["job"]["id"]) == (200, first.json["job"]["id"])
    assert count(api) == 1


def test_a_job_remembers_the_request_it_came_from(api: AgentsApi, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="webhooks.api.access"):
        first, again = (api.execute(Idempotency_Key="k-1") for _ in range(2))
    job, request = first.json["job"]["id"], first.headers["Request-Id"]
    assert api.house.row(job).request_id == request != again.headers["Request-Id"]
    told = [(vars(record)["request"], vars(record)["job"]) for record in caplog.records]
    assert told == [(request, job), (again.headers["Request-Id"], job)]


def test_a_key_with_another_request_is_refused(api: AgentsApi) -> None:
    api.execute(Idempotency_Key="k-1")
    for other in (api.execute(Idempotency_Key="k-1", text="other"), api.execute("acme", Idempotency_Key="k-1")):
        assert (other.status_code, other.json["type"]) == (422, "urn:aswhom:problem:idempotency-key-reused")
    assert count(api) == 1


@pytest.mark.parametrize(
    ("deployed", "status"),
    [
        (Registry([]), 404),
        (Registry([], [create_model("Say", __base__=Say, __module__=Say.__module__, to=(str, ...))]), 422),
    ],
    ids=["the tool is gone", "it takes more"],
)
def test_the_same_key_tells_of_its_job_whatever_was_deployed_meanwhile(
    api: AgentsApi, deployed: Registry, status: int
) -> None:
    job = api.execute(Idempotency_Key="k-1").json["job"]["id"]
    api.finish(job, result={"id": "7"})
    api.deploy(deployed)
    for name in ("github.Say", "github__Say"):
        body = {"identifier": "ada", "parameters": {"text": "hello"}}
        again = api.ask("POST", f"/v1/tools/{name}/execute", json=body, headers={"Idempotency-Key": "k-1"})
        assert (again.status_code, again.json["job"]["id"], again.json["result"]) == (200, job, {"id": "7"})
    assert api.execute("acme", Idempotency_Key="k-1").json["type"] == "urn:aswhom:problem:idempotency-key-reused"
    for none in (
        api.execute(),
        api.execute(Idempotency_Key="k-2"),
        api.execute(Idempotency_Key="k-1", key=api.key(agent="o")),
    ):
        assert none.status_code == status
    assert api.execute(Idempotency_Key="k-1", key=api.key(tools=["linear.*"])).status_code == 404
    assert count(api) == 1


def test_a_key_belongs_to_its_agent_alone(api: AgentsApi) -> None:
    first = api.execute(Idempotency_Key="k-1")
    other = api.execute(Idempotency_Key="k-1", key=api.key(agent="other"))
    assert other.json["job"]["id"] != first.json["job"]["id"]
    assert api.execute(Idempotency_Key="k-1", key=api.key()).json["job"]["id"] == first.json["job"]["id"]


def test_parameters_that_do_not_fit_are_told_of_without_what_was_sent(sqlite_api: AgentsApi) -> None:
    body = {"identifier": "ada", "parameters": {"text": ["canary"], "more": "canary"}}
    answer = sqlite_api.ask("POST", "/v1/tools/github.Say/execute", json=body)
    assert answer.status_code == 422
    assert {error["where"] for error in answer.json["errors"]} == {"parameters.text", "parameters.more"}
    assert "canary" not in answer.text
    assert count(sqlite_api) == 0


def test_a_key_covers_the_tools_it_names(sqlite_api: AgentsApi) -> None:
    narrow = sqlite_api.key(tools=["linear.*"])
    assert sqlite_api.execute(key=narrow).status_code == 404
    assert sqlite_api.ask("GET", "/v1/tools", narrow).json == {"tools": []}
    assert sqlite_api.execute(key=sqlite_api.key(tools=["github.S*"])).status_code == 202


def test_a_revoked_agent_has_its_jobs_found(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    made = api.revoke(Scope(kind=ScopeKind.AGENT, key="acme.bot"))
    assert api.revoker.advance(made)
    shown = api.ask("GET", f"/v1/jobs/{job}", api.keys["acme", Role.READER])
    assert shown.status_code == 401  # that key is the same agent's
    assert api.house.row(job).state == "cancelled"


def test_a_request_is_on_record_with_the_key_it_came_by(api: AgentsApi) -> None:
    job = api.execute().json["job"]["id"]
    row = api.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "tool.requested")).one())
    assert (row.job_id, row.agent_id, row.on_behalf_of) == (job, "acme.bot", "acme.ada")
    assert row.detail["key"].startswith("key_")


def test_nobody_waits_for_a_job_that_waits_for_a_person(api: AgentsApi) -> None:
    def park() -> None:
        (job,) = api.house.states()
        claimed = api.house.claim(job)
        expires = timedelta(hours=1)
        api.database.write(
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

    api.at_work = park
    answer = api.execute(wait=20)
    assert (answer.status_code, answer.json["outcome"]) == (202, "needs_consent")
    assert answer.json["reason"] == "ada must connect github"


def waiting_at_once(api: AgentsApi, callers: Iterator[Caller]) -> list[str]:
    """The keys of those of *callers* that wait for one job, each of whom comes while all before it wait yet."""
    job, waited = api.execute(text=secrets.token_hex(4)).json["job"]["id"], list[str]()

    def look(who: Caller) -> None:
        waited.append(who.key)
        api.at_work = come
        come()

    def come() -> None:
        for who in callers:
            api.at_work = partial(look, who)
            api.requests.wait(who, job, within=timedelta(seconds=20))
        if api.house.states()[job] != "done":
            api.finish(job, result={"id": "7"})

    come()
    return waited


def test_so_many_of_a_process_wait_and_no_more(sqlite_api: AgentsApi) -> None:
    who = sqlite_api.caller()
    keys = [f"key_{number}" for number in range(14)]
    for _ in range(2):  # who has waited makes room
        assert waiting_at_once(sqlite_api, (replace(who, key=key) for key in keys)) == keys[:12]


def test_one_key_leaves_places_to_the_others(sqlite_api: AgentsApi) -> None:
    one, other = sqlite_api.caller(), sqlite_api.caller(sqlite_api.keys["acme", Role.READER])
    for _ in range(2):
        assert waiting_at_once(sqlite_api, iter([*[one] * 12, other])) == [*[one.key] * 4, other.key]


def test_a_key_that_comes_at_once_from_many_makes_one_job(api: AgentsApi) -> None:
    action, who = Say(text="hello"), api.caller()
    keyed = Keyed(key="k-1", document={"text": "hello"})
    ask = partial(api.requests.execute, who, action, keyed, identifier="ada", request="req_1", now=api.now())
    with ThreadPoolExecutor(8) as many:
        made = [future.result() for future in [many.submit(ask) for _ in range(8)]]
    assert len({one.id for one in made}) == 1
    assert [one.repeated for one in made].count(False) == 1
    assert count(api) == 1


def test_a_caller_whose_key_ended_meanwhile_has_nothing_accepted(api: AgentsApi) -> None:
    who = api.caller()
    api.revoke(Scope(kind=ScopeKind.AGENT, key="acme.bot"))
    with pytest.raises(NotLetIn):
        api.requests.execute(
            who, Say(text="x"), Keyed(key=None, document={}), identifier="ada", request="req_1", now=api.now()
        )
    assert count(api) == 0
