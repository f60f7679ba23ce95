"""The MCP server: by the protocol's own client, and what that one never sends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update
from werkzeug.serving import make_server

from identity.api_keys import Role
from identity.secret import Secret
from identity.tables import installations, provider_connections
from pipeline.ledger.intents import Ended
from tests.api.agents_api import BASE, AgentsApi
from tests.ledger.acts import open_
from tests.ledger.house import intent_of
from tests.ledgers import MOSTLY_SQLITE
from tests.servers.npm import install
from tests.servers.web import serving
from webhooks.api.mcp import REVISIONS
from webhooks.api.mcp_tools import CONNECT, LOOK

pytestmark = MOSTLY_SQLITE

PEER = Path(__file__).parents[1] / "peers" / "mcp"
AT = "/v1/mcp?identifier=ada&wait=0"


@pytest.fixture
def address(sqlite_api: AgentsApi) -> Iterator[str]:
    """The API before real HTTP, as ada's client is given it."""
    server = make_server("127.0.0.1", 0, sqlite_api.app, threaded=True)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}{AT}"


def by_its_client(address: str, key: Secret, *calls: dict[str, Any]) -> list[dict[str, Any]]:
    install(PEER)
    lines = "".join(json.dumps(call) + "\n" for call in calls)
    command = ["node", "client.mjs", address, key.reveal()]
    done = subprocess.run(command, cwd=PEER, input=lines, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def post(api: AgentsApi, message: object, *, at: str = AT, key: Secret | None = None, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.ask("POST", at, key, json=message, headers=sent)


def call(api: AgentsApi, name: str, *, key: Secret | None = None, at: str = AT, **arguments: Any) -> dict[str, Any]:
    """The result of a tool."""
    params = {"name": name, "arguments": arguments}
    answer = post(api, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, at=at, key=key)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json["result"]
    return result


def told(result: dict[str, Any]) -> Any:
    """What its one text says."""
    (content,) = result["content"]
    assert content["type"] == "text"
    return json.loads(content["text"])


def test_its_own_client_lists_calls_and_looks(sqlite_api: AgentsApi, address: str) -> None:
    api = sqlite_api
    key = api.keys["acme", Role.AGENT]
    say = {"name": "github__Say", "arguments": {"text": "hello"}}
    version, listed, made, unfit, nothing = by_its_client(
        address,
        key,
        {"call": "getServerVersion"},
        {"call": "listTools"},
        {"call": "callTool", "params": say},
        {"call": "callTool", "params": {"name": "github__Say", "arguments": {"words": "hello"}}},
        {"call": "callTool", "params": {"name": "github__Shout"}},
    )
    assert version["name"] == "aswhom"
    assert {tool["name"] for tool in listed["tools"]} == {"github__Say", LOOK, CONNECT}
    assert (made["isError"], told(made)["outcome"]) == (False, "pending")
    assert (unfit["isError"], "parameters.text" in unfit["content"][0]["text"]) == (True, True)
    assert nothing["refused"] == -32602
    job = told(made)["job"]
    row = api.house.row(job)
    assert (row.pattern, row.user_id, row.agent_id) == ("delegated", "acme.ada", "acme.bot")
    api.finish(job, result={"id": "7"})
    (seen,) = by_its_client(address, key, {"call": "callTool", "params": {"name": LOOK, "arguments": {"job": job}}})
    assert told(seen) == {"outcome": "done", "job": job, "result": {"id": "7"}}


def test_a_job_that_needs_consent_says_so_and_its_link_is_for_its_own_person(api: AgentsApi) -> None:
    job = told(call(api, "github__Say", text="hello"))["job"]
    lacking = intent_of(api.house, api.house.claim(job), principal="acme.ada")
    lease = replace(lacking.lease, principal="acme.ada", scopes=frozenset({"repo"}))
    assert isinstance(open_(api.house, replace(lacking, lease=lease)), Ended)
    waits = told(call(api, LOOK, job=job))
    assert (waits["outcome"], waits["missing_scopes"]) == ("needs_consent", ["repo"])
    assert CONNECT in waits["next"]
    link = told(call(api, CONNECT, job=job))
    assert link["for"] == "acme.ada"
    assert link["url"].startswith(f"{BASE}/connect/")


def test_a_link_is_made_for_no_job_that_waits_for_nobody(sqlite_api: AgentsApi) -> None:
    job = told(call(sqlite_api, "github__Say", text="hello"))["job"]
    refused = call(sqlite_api, CONNECT, job=job)
    assert refused["isError"] is True
    assert "waits for nobody's consent" in refused["content"][0]["text"]


def test_a_key_sees_its_own_jobs_and_acts_as_its_own_users_alone(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    job = told(call(api, "github__Say", text="hello"))["job"]
    for other in (api.key(agent="other"), api.keys["globex", Role.AGENT]):
        hidden = call(api, LOOK, key=other, job=job)
        assert (hidden["isError"], "There is no such job" in hidden["content"][0]["text"]) == (True, True)
    refused = call(api, "github__Say", key=api.key(users=["mal*"]), text="hello")
    assert refused["isError"] is True
    assert len(api.house.states()) == 1


@pytest.mark.parametrize("role", [Role.READER, Role.PRODUCT])
def test_a_role_that_executes_nothing_is_offered_no_tool_and_refused(sqlite_api: AgentsApi, role: Role) -> None:
    key = sqlite_api.keys["acme", role]
    listed = post(sqlite_api, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, key=key).json["result"]["tools"]
    assert "github__Say" not in {tool["name"] for tool in listed}
    refused = call(sqlite_api, "github__Say", key=key, text="hello")
    assert (refused["isError"], "may not execute tools" in refused["content"][0]["text"]) == (True, True)
    assert sqlite_api.house.states() == {}


def test_a_call_with_an_idempotency_key_is_made_once(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    params = {"name": "github__Say", "arguments": {"text": "hello"}, "_meta": {"idempotencyKey": "k1"}}
    again = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    jobs = {told(post(api, again).json["result"])["job"] for _ in range(2)}
    assert jobs == set(api.house.states())
    by_http = api.execute(text="hello", Idempotency_Key="k1")
    assert {by_http.json["job"]["id"]} == jobs, "one key means one request, by whichever way it comes"
    other = {**again, "params": {**params, "arguments": {"text": "bye"}}}
    assert post(api, other).json["result"]["isError"] is True
    unfit = {**again, "params": {**params, "_meta": {"idempotencyKey": 7}}}
    assert post(api, unfit).json["result"]["isError"] is True
    assert len(api.house.states()) == 1


@pytest.mark.parametrize(
    ("asked", "agreed"), [*((revision, revision) for revision in REVISIONS), ("2024-11-05", REVISIONS[0])]
)
def test_a_revision_is_agreed_on(sqlite_api: AgentsApi, asked: str, agreed: str) -> None:
    params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    answer = post(sqlite_api, {"jsonrpc": "2.0", "id": "a", "method": "initialize", "params": params})
    assert (answer.json["id"], answer.json["result"]["protocolVersion"]) == ("a", agreed)
    assert answer.json["result"]["capabilities"] == {"tools": {}}


def test_a_notification_is_taken_and_not_answered(sqlite_api: AgentsApi) -> None:
    answer = post(sqlite_api, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (answer.status_code, answer.data) == (202, b"")


def test_a_ping_is_answered_and_an_unknown_method_is_not_found(sqlite_api: AgentsApi) -> None:
    assert post(sqlite_api, {"jsonrpc": "2.0", "id": 1, "method": "ping"}).json["result"] == {}
    unknown = post(sqlite_api, {"jsonrpc": "2.0", "id": 1, "method": "prompts/list"})
    assert (unknown.status_code, unknown.json["error"]["code"]) == (200, -32601)


@pytest.mark.parametrize("message", [{}, {"jsonrpc": "1.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": [1]}])
def test_what_is_no_request_is_refused(sqlite_api: AgentsApi, message: object) -> None:
    refused = post(sqlite_api, message)
    assert (refused.status_code, refused.json["error"]["code"], refused.json["id"]) == (400, -32600, None)


def test_a_page_of_another_origin_is_refused(sqlite_api: AgentsApi) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert post(sqlite_api, ping, Origin="https://elsewhere.example").status_code == 403
    assert post(sqlite_api, ping, Origin=BASE).status_code == 200


def test_a_revision_nobody_knows_is_refused(sqlite_api: AgentsApi) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    refused = post(sqlite_api, ping, MCP_Protocol_Version="1999-01-01")
    assert refused.status_code == 400
    assert REVISIONS[0] in refused.json["detail"]


def test_no_stream_is_offered(sqlite_api: AgentsApi) -> None:
    assert sqlite_api.ask("GET", AT).status_code == 405


def test_tools_are_listed_that_could_be_carried_out_for_whom_the_address_names(sqlite_api: AgentsApi) -> None:
    api = sqlite_api

    def names(at: str, key: Secret | None = None) -> set[str]:
        answer = post(api, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, at=at, key=key).json
        return {tool["name"] for tool in answer["result"]["tools"]}

    assert names("/v1/mcp?identifier=ada") == {"github__Say", LOOK, CONNECT}
    assert names("/v1/mcp?identifier=user:somebody-new") == {"github__Say", LOOK, CONNECT}
    key = api.key(users=["mal*"])
    refused = post(api, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, key=key).json
    assert refused["error"]["code"] == -32602
    api.database.write(lambda c: c.execute(delete(installations)).rowcount)
    api.database.write(lambda c: c.execute(update(provider_connections).values(provider="elsewhere")).rowcount)
    assert names("/v1/mcp?identifier=ada") == {LOOK, CONNECT}


def test_as_whom_stands_in_the_address(sqlite_api: AgentsApi) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert post(sqlite_api, ping, at="/v1/mcp").status_code == 422
    service = told(call(sqlite_api, "github__Say", at="/v1/mcp?identifier=tenant:acme&wait=0", text="hello"))["job"]
    assert sqlite_api.house.row(service).pattern == "service"
    nobody = call(sqlite_api, "github__Say", at="/v1/mcp?identifier=grace&wait=0", text="hello")
    assert nobody["isError"] is True
