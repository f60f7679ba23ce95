"""Deliveries are signed as published, shaped as published, and keep their guid when sent again."""

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLSchema
from graphql.type import GraphQLObjectType

from tests.sandbox.driver import Sandbox, running
from tests.sandbox.published import github_webhooks
from tests.servers import shared_data


def payload_of(delivery: tuple[dict[str, str], bytes]) -> Any:
    return json.loads(delivery[1])


def test_a_pull_request_is_announced_signed(sandbox: Sandbox) -> None:
    opened = sandbox.open_pull(labels=["bug"])
    assert opened["statuses"] == [202]
    ((headers, body),) = sandbox.receiver.take()
    secret = sandbox.world["github"]["webhook_secret"].encode()
    assert headers["X-Hub-Signature-256"] == "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    assert [headers["X-GitHub-Delivery"]] == opened["deliveries"]
    assert headers["X-GitHub-Event"] == "pull_request"
    payload = json.loads(body)
    assert payload["installation"]["id"] == 9001
    assert payload["pull_request"]["labels"][0]["name"] == "bug"
    assert payload["pull_request"]["user"]["login"] == payload["sender"]["login"] == "ada"


def test_each_label_is_a_delivery(sandbox: Sandbox) -> None:
    number = sandbox.open_pull()["number"]
    sandbox.receiver.take()
    sandbox.order("github", f"pulls/acme/shop/{number}/labels", labels=["bug", "urgent"], sender="grace")
    first, second = map(payload_of, sandbox.receiver.take())
    assert (first["action"], first["label"]["name"], second["label"]["name"]) == ("labeled", "bug", "urgent")
    assert [label["name"] for label in second["pull_request"]["labels"]] == ["bug", "urgent"]
    assert second["sender"]["login"] == "grace"


def test_a_held_delivery_is_sent_when_told_and_again_with_the_same_guid(sandbox: Sandbox) -> None:
    held = sandbox.open_pull(hold=True)
    assert (held["statuses"], sandbox.receiver.take()) == ([], [])
    (guid,) = held["deliveries"]
    for _ in range(2):
        assert sandbox.order("github", "deliver", delivery=guid) == {"delivery": guid, "status": 202}
    (first_headers, first), (again_headers, again) = sandbox.receiver.take()
    assert first_headers["X-GitHub-Delivery"] == again_headers["X-GitHub-Delivery"] == guid
    assert first == again
    row = next(row for row in sandbox.read("github", "deliveries") if row["guid"] == guid)
    assert (row["statuses"], row["redelivery"]) == ([202, 202], True)


def test_the_app_can_list_deliveries_and_ask_for_one_again(sandbox: Sandbox) -> None:
    (guid,) = sandbox.open_pull(hold=True)["deliveries"]
    rows = sandbox.github("GET", "/app/hook/deliveries", sandbox.app_jwt()).json()
    assert rows[0]["guid"] == guid
    path = f"/app/hook/deliveries/{rows[0]['id']}/attempts"
    assert sandbox.github("POST", path, sandbox.app_jwt()).status_code == 202
    assert sandbox.receiver.take()[0][0]["X-GitHub-Delivery"] == guid


def test_a_withdrawn_authorization_kills_the_grant_and_says_the_same_bytes_each_time(sandbox: Sandbox) -> None:
    bodies = []
    for _ in range(2):
        token = sandbox.connect("github", "grace")["access_token"]
        sandbox.order("github", "authorizations/revoke", user="grace")
        assert sandbox.github("GET", "/user", token).status_code == 401
        ((headers, body),) = sandbox.receiver.take()
        assert headers["X-GitHub-Event"] == "github_app_authorization"
        bodies.append(body)
    assert bodies[0] == bodies[1]
    assert json.loads(bodies[0]).keys() == {"action", "sender"}


@pytest.mark.parametrize("what", ["token", "grant"])
def test_an_authorization_that_the_client_ends_is_told_of_by_the_bytes_of_a_withdrawal(
    sandbox: Sandbox, what: str
) -> None:
    def end() -> int:
        token = sandbox.connect("github", "grace")["access_token"]
        return sandbox.application("DELETE", what, token)

    sandbox.connect("github", "grace")
    sandbox.order("github", "authorizations/revoke", user="grace")
    ((_, withdrawal),) = sandbox.receiver.take()
    assert end() == 204
    ((headers, echo),) = sandbox.receiver.take()
    assert (headers["X-GitHub-Event"], echo) == ("github_app_authorization", withdrawal)
    sandbox.order("github", "authorizations/echoes", hold=True)
    try:
        assert end() == 204
        assert sandbox.receiver.take() == []
        held = next(row for row in sandbox.read("github", "deliveries") if row["late"] and not row["statuses"])
        listed = sandbox.github("GET", "/app/hook/deliveries", sandbox.app_jwt()).json()
        assert held["guid"] not in {row["guid"] for row in listed}, "GitHub has not begun to send it"
        sandbox.order("github", "deliver", delivery=held["guid"])
    finally:
        sandbox.order("github", "authorizations/echoes", hold=False)
    ((_, late),) = sandbox.receiver.take()
    assert late == withdrawal
    assert sandbox.application("DELETE", what, "gho_unknown") == 422
    assert sandbox.receiver.take() == []


@pytest.mark.parametrize("labelled", [[], ["bug"]])
def test_pull_request_payloads_are_as_published(sandbox: Sandbox, labelled: list[str]) -> None:
    validator = github_webhooks()
    number = sandbox.open_pull(labels=labelled, body=None)["number"]
    sandbox.order("github", f"pulls/acme/shop/{number}/labels", labels=["later"])
    opened, labeled = map(payload_of, sandbox.receiver.take())
    validator("pull_request$opened").validate(opened)
    validator("pull_request$labeled").validate(labeled)


def test_an_updated_issue_is_announced_once_and_as_published(sandbox: Sandbox) -> None:
    validator, token = github_webhooks(), sandbox.connect("github", "ada")["access_token"]
    made = sandbox.github("POST", "/repos/acme/shop/issues", token, json={"title": "Broken", "body": None}).json()
    issue = f"/repos/acme/shop/issues/{made['number']}"
    sandbox.receiver.take()
    for changes, actions in (
        ({"title": "Mended", "body": "Why", "state": "closed"}, ["edited", "closed"]),
        ({"title": "Mended", "state": "closed"}, []),
        ({"state": "open"}, ["reopened"]),
    ):
        assert sandbox.github("PATCH", issue, token, json=changes).status_code == 200
        sent = list(map(payload_of, sandbox.receiver.take()))
        assert [payload["action"] for payload in sent] == actions
        for payload in sent:
            assert (payload["sender"]["login"], payload["issue"]["number"]) == ("ada", made["number"])
            validator(f"issues${payload['action']}").validate(payload)


@pytest.mark.parametrize("asked", [{"reviewer": "grace"}, {"team": "Back End"}])
def test_review_requests_are_as_published(sandbox: Sandbox, asked: dict[str, str]) -> None:
    number = sandbox.open_pull()["number"]
    sandbox.order("github", f"pulls/acme/shop/{number}/review_requests", **asked)
    *_, requested = map(payload_of, sandbox.receiver.take())
    github_webhooks()("pull_request$review_requested").validate(requested)


def test_the_other_payloads_are_as_published(tmp_path: Path) -> None:
    with running(tmp_path) as sandbox:  # one of its own, since an installation is deleted in it
        _the_other_payloads_are_as_published(sandbox)


def _the_other_payloads_are_as_published(sandbox: Sandbox) -> None:
    validator = github_webhooks()
    sandbox.order("github", "authorizations/revoke", user="linus")
    wide = {"issues": "write", "metadata": "read"}
    for action, more in (
        ("suspend", {}),
        ("unsuspend", {}),
        ("permissions", {"permissions": wide}),
        ("remove_repositories", {"repositories": ["globex/site"]}),
        ("delete", {}),
        ("reinstall", {}),
    ):
        sandbox.order("github", f"installations/9002/{action}", **more)
    sent = sandbox.receiver.take()
    names = [
        "github_app_authorization$revoked",
        "installation$suspend",
        "installation$unsuspend",
        "installation$new_permissions_accepted",
        "installation_repositories$removed",
        "installation$deleted",
        "installation$created",
    ]
    for name, delivery in zip(names, sent, strict=True):
        assert delivery[0]["X-GitHub-Event"] == name.partition("$")[0]
        validator(name).validate(payload_of(delivery))
    assert payload_of(sent[3])["installation"]["permissions"] == wide
    assert payload_of(sent[-1])["installation"]["id"] not in (9001, 9002, 9003)  # a re-installation is a new one


def test_slack_events_are_signed_and_repeated_with_their_id(sandbox: Sandbox) -> None:
    team_id = sandbox.world["slack"]["workspaces"][0]["team_id"]
    sent = sandbox.order("slack", "events", team_id=team_id, event={"type": "app_uninstalled"})
    sandbox.order("slack", "events", event_id=sent["event_id"])
    (headers, body), (again_headers, again) = sandbox.receiver.take()
    moment = headers["X-Slack-Request-Timestamp"]
    signed = b"v0:" + moment.encode() + b":" + body
    secret = sandbox.world["slack"]["signing_secret"].encode()
    assert headers["X-Slack-Signature"] == "v0=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()
    assert abs(int(moment) - time.time()) < 60
    payload = json.loads(body)
    assert (payload["type"], payload["team_id"], payload["event_id"]) == ("event_callback", team_id, sent["event_id"])
    assert (again, again_headers["X-Slack-Retry-Num"]) == (body, "1")


def test_what_a_person_types_is_escaped_as_slack_does_and_its_own_markup_is_not(sandbox: Sandbox) -> None:
    team_id = sandbox.world["slack"]["workspaces"][0]["team_id"]
    typed = '<@U123> is "R&D" <now>, says <https://a.example|this>? 1 &lt; 2'
    sandbox.order("slack", "events", team_id=team_id, event={"type": "app_mention", "text": typed})
    ((_, body),) = sandbox.receiver.take()
    sent = '<@U123> is "R&amp;D" &lt;now&gt;, says <https://a.example|this>? 1 &amp;lt; 2'
    assert json.loads(body)["event"]["text"] == sent


def test_a_signal_alone_ends_nothing(sandbox: Sandbox) -> None:
    token = sandbox.connect("github", "ada")["access_token"]
    sandbox.order("github", "authorizations/revoke", user="ada", signal_only=True)
    assert payload_of(sandbox.receiver.take()[0])["sender"]["login"] == "ada"
    assert sandbox.github("GET", "/user", token).status_code == 200


def test_a_stranger_may_open_a_pull_request(sandbox: Sandbox) -> None:
    sandbox.open_pull(author="mallory")
    payload = payload_of(sandbox.receiver.take()[0])
    assert payload["pull_request"]["user"]["login"] == "mallory"
    assert payload["pull_request"]["user"]["id"] not in {row["id"] for row in sandbox.world["github"]["users"]}


def test_an_organization_that_throws_the_app_out_ends_its_grants_and_no_others(sandbox: Sandbox) -> None:
    ours, theirs = (sandbox.connect("linear", name)["access_token"] for name in ("linus", "grace"))
    assert sandbox.order("linear", "authorizations/revoke", organization="globex")["status"] == 202
    ((headers, body),) = sandbox.receiver.take()
    secret = sandbox.world["linear"]["webhook_secret"].encode()
    assert headers["Linear-Signature"] == hmac.new(secret, body, hashlib.sha256).hexdigest()
    payload = json.loads(body)
    assert (payload["type"], payload["action"]) == ("OAuthApp", "revoked")
    assert payload["organizationId"] == sandbox.world["linear"]["organizations"][1]["id"]
    assert abs(payload["webhookTimestamp"] / 1000 - time.time()) < 60
    assert sandbox.linear(ours, "{ viewer { id } }").status_code == 401
    assert sandbox.linear(theirs, "{ viewer { id } }").status_code == 200


def test_a_webhook_of_linears_that_was_held_is_sent_and_sent_again_with_the_same_bytes(sandbox: Sandbox) -> None:
    held = sandbox.order("linear", "authorizations/revoke", organization="acme", signal_only=True, hold=True)
    assert (held["status"], sandbox.receiver.take()) == (None, [])
    for _ in range(2):
        assert sandbox.order("linear", "deliver", delivery=held["delivery"])["status"] == 202
    first, again = sandbox.receiver.take()
    assert (first[1], first[0]["Linear-Delivery"]) == (again[1], held["delivery"])
    assert again[0]["Linear-Delivery"] == held["delivery"]


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("github", "pulls"),
        ("github", "deliver"),
        ("auth", "expire"),
        ("slack", "events"),
        ("linear", "authorizations/revoke"),
        ("linear", "deliver"),
    ],
)
def test_an_order_that_lacks_something_is_told_what(sandbox: Sandbox, service: str, path: str) -> None:
    answer = sandbox.http.post(sandbox.url(service, f"/_sandbox/{path}"), json={})
    assert answer.status_code == 400
    assert "JSON object with" in answer.json()["error"]


def test_a_workspace_that_throws_the_app_out_says_so_twice_in_the_published_shape(sandbox: Sandbox) -> None:
    workspace = sandbox.world["slack"]["workspaces"][1]
    for reversed_ in (False, True):
        sandbox.order("slack", "uninstall", team_id=workspace["team_id"], users=["U1"], reversed=reversed_)
        bodies = [payload_of(delivery) for delivery in sandbox.receiver.take()]
        assert [body["event"]["type"] for body in bodies] == ["tokens_revoked", "app_uninstalled"][
            :: -1 if reversed_ else 1
        ]
        for body in bodies:
            path = shared_data.folder() / "slack" / "payloads" / f"event_callback.{body['event']['type']}.2.json"
            published = json.loads(path.read_text())
            assert body.keys() == published.keys()
            assert body["event"].keys() == published["event"].keys()
    assert not sandbox.slack("auth.test", workspace["bot_token"]).json()["ok"]
    sandbox.order("slack", "restore", team_id=workspace["team_id"])


def test_what_linear_says_of_the_app_is_in_its_published_schema(sandbox: Sandbox, linear_schema: GraphQLSchema) -> None:
    sandbox.order("linear", "authorizations/revoke", organization="acme", signal_only=True)
    sandbox.order("linear", "authorizations/end", organization="acme", user="ada")
    sandbox.order("linear", "permissions", organization="acme", removed=["t-1"])
    sent = sandbox.receiver.take()
    names = ("OAuthAppWebhookPayload", "OAuthAuthorizationWebhookPayload", "AppUserTeamAccessChangedWebhookPayload")
    for name, delivery in zip(names, sent, strict=True):
        described = linear_schema.type_map[name]
        assert isinstance(described, GraphQLObjectType)
        assert payload_of(delivery).keys() == described.fields.keys()
