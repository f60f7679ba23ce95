"""The request log: everything that arrived, in order, as whom, and never a token."""

import hashlib
import json
import re

from tests.sandbox.driver import SERVICES, Sandbox

TOKENS = re.compile(r"gh[usr]_[0-9a-f]{8}|lin_(oauth|refresh)_|xoxb-|eyJ[A-Za-z0-9]|BEGIN .*KEY")


def test_a_request_is_logged_with_who_made_it_and_what_it_did(sandbox: Sandbox) -> None:
    number = sandbox.open_pull()["number"]
    since = len(sandbox.read("github", "log"))
    ada, app = sandbox.connect("github", "ada")["access_token"], sandbox.installation_token()
    ids = {name: f"{name}-9" for name in ("attempt", "refresh", "connect", "revocation")}
    headers = {f"X-Aswhom-{name}": id for name, id in ids.items()} | {"Idempotency-Key": "key-9"}
    path = f"/repos/acme/shop/issues/{number}/comments"
    sandbox.github("POST", path, ada, json={"body": "x"}, headers=headers)
    sandbox.github("GET", path, app)
    sandbox.github("GET", path, None)
    mint, write, read, refused = sandbox.read("github", f"log?since={since}")
    assert [row["seq"] for row in (mint, write, read, refused)] == [since + step for step in (1, 2, 3, 4)]
    assert (mint["token_kind"], mint["actor"], mint["resource"]) == ("app", "aswhom-sandbox", "installation:9001")
    assert (mint["tenant"], mint["issued"]) == ("acme", hashlib.sha256(app.encode()).hexdigest())
    assert (read["issued"], read["token_fingerprint"]) == (None, mint["issued"])
    assert write["effect"] is True
    assert {name: write[name] for name in ("upstream", "method", "path", "token_kind", "actor", "tenant")} == {
        "upstream": "github",
        "method": "POST",
        "path": path,
        "token_kind": "user",
        "actor": "ada",
        "tenant": "acme",
    }
    assert {name: write[name] for name in ids} == ids
    assert {name: read[name] for name in ids} == dict.fromkeys(ids)
    assert (write["idempotency_key"], write["status"]) == ("key-9", 201)
    assert write["resource"] == f"acme/shop#{number}"
    assert write["token_fingerprint"] == hashlib.sha256(ada.encode()).hexdigest()
    assert (read["token_kind"], read["effect"]) == ("installation", False)
    assert (refused["token_kind"], refused["status"], refused["effect"]) == ("none", 401, False)


def test_a_dead_token_is_still_recognised(sandbox: Sandbox) -> None:
    token = sandbox.connect("github", "grace")["access_token"]
    sandbox.order("auth", "revoke", provider="github", user="grace")
    sandbox.github("GET", "/user", token)
    last = sandbox.read("github", "log")[-1]
    assert (last["status"], last["token_kind"], last["actor"]) == (401, "user", "grace")


def test_linear_names_the_operation(sandbox: Sandbox) -> None:
    token = sandbox.connect("linear", "ada")["access_token"]
    team = sandbox.world["linear"]["organizations"][0]["teams"][0]["id"]
    create = f'mutation {{ issueCreate(input: {{teamId: "{team}", title: "t"}}) {{ issue {{ identifier }} }} }}'
    made = sandbox.linear(token, create).json()["data"]["issueCreate"]["issue"]["identifier"]
    last = sandbox.read("linear", "log")[-1]
    assert (last["operation"], last["effect"], last["resource"]) == ("issueCreate", True, made)
    assert (last["actor"], last["tenant"]) == ("ada", "acme")


def test_the_files_hold_the_log_and_no_token(sandbox: Sandbox) -> None:
    tokens = sandbox.connect("linear", "ada")
    sandbox.refresh("linear", tokens["refresh_token"])
    sandbox.linear(tokens["access_token"], "{ viewer { id } }")
    sandbox.slack("auth.test", sandbox.world["slack"]["workspaces"][0]["bot_token"])
    sandbox.github("GET", "/app", sandbox.app_jwt())
    assert all(TOKENS.search(token) for token in (tokens["access_token"], tokens["refresh_token"], sandbox.app_jwt()))
    for service in SERVICES:
        text = (sandbox.folder / f"{service}.jsonl").read_text()
        requests = [row for row in map(json.loads, text.splitlines()) if row.pop("log") == "request"]
        assert sorted(requests, key=lambda row: row["seq"]) == sandbox.read(service, "log")
        assert not TOKENS.search(text)
        assert not TOKENS.search(json.dumps(sandbox.read(service, "log")))
    assert '"log": "presentation"' in (sandbox.folder / "auth.jsonl").read_text()
