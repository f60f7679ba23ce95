"""Answers are held against what the providers publish, so that the sandbox cannot drift into fiction."""

from typing import Any

import pytest
from graphql import parse, validate
from graphql.type import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
)

from deploy.sandbox.linear.schema import SCHEMA
from tests.sandbox.driver import Sandbox
from tests.sandbox.published import github_rest, slack_web

REPO = "/repos/{owner}/{repo}"
ISSUE = f"{REPO}/issues/{{issue_number}}"


def test_what_github_answers_a_user_or_installation_is_as_published(sandbox: Sandbox) -> None:
    published = github_rest()
    number = sandbox.open_pull(labels=["bug"], body="why")["number"]
    user, installation = sandbox.connect("github", "ada")["access_token"], sandbox.installation_token()
    shop = "/repos/acme/shop"
    cases: list[tuple[str, str, str, int, dict[str, Any] | None]] = [
        ("GET", shop, REPO, 200, None),
        ("GET", f"{shop}/pulls", f"{REPO}/pulls", 200, None),
        ("GET", f"{shop}/pulls/{number}", f"{REPO}/pulls/{{pull_number}}", 200, None),
        ("POST", f"{shop}/issues", f"{REPO}/issues", 201, {"title": "t", "body": "b", "labels": ["bug", "new"]}),
        ("GET", f"{shop}/issues", f"{REPO}/issues", 200, None),
        ("GET", f"{shop}/issues/{number}", ISSUE, 200, None),
        (
            "PATCH",
            f"{shop}/issues/{number}",
            ISSUE,
            200,
            {"title": "u", "state": "closed", "state_reason": "not_planned"},
        ),
        ("PATCH", f"{shop}/issues/{number}", ISSUE, 200, {"state": "open"}),
        ("POST", f"{shop}/issues/{number}/comments", f"{ISSUE}/comments", 201, {"body": "hello"}),
        ("GET", f"{shop}/issues/{number}/comments", f"{ISSUE}/comments", 200, None),
        ("POST", f"{shop}/issues/{number}/labels", f"{ISSUE}/labels", 200, {"labels": ["bug", "late"]}),
        ("GET", f"{shop}/issues/{number}/labels", f"{ISSUE}/labels", 200, None),
        ("GET", "/repos/globex/site", REPO, 404, None),
    ]
    for token in (user, installation):
        for method, path, template, status, body in cases:
            answer = sandbox.github(method, path, token, json=body)
            assert (path, answer.status_code) == (path, status)
            published(method, template, status).validate(answer.json())
    for path, token in (
        ("/user", user),
        ("/user/installations", user),
        ("/installation/repositories", installation),
    ):
        published("GET", path, 200).validate(sandbox.github("GET", path, token).json())


def test_what_github_answers_the_app_is_as_published(sandbox: Sandbox) -> None:
    published, app = github_rest(), sandbox.app_jwt()
    sandbox.open_pull()
    tokens = "/app/installations/{installation_id}/access_tokens"
    for method, path, template, status, body in [
        ("GET", "/app", "/app", 200, None),
        ("GET", "/app/installations", "/app/installations", 200, None),
        ("GET", "/app/installations/9001", "/app/installations/{installation_id}", 200, None),
        ("GET", "/repos/acme/shop/installation", f"{REPO}/installation", 200, None),
        ("POST", "/app/installations/9001/access_tokens", tokens, 201, {"repositories": ["shop"]}),
        ("POST", "/app/installations/77/access_tokens", tokens, 404, None),
        ("GET", "/app/hook/deliveries", "/app/hook/deliveries", 200, None),
        ("GET", "/app/hook/deliveries/1", "/app/hook/deliveries/{delivery_id}", 200, None),
    ]:
        answer = sandbox.github(method, path, app, json=body)
        assert (path, answer.status_code) == (path, status)
        published(method, template, status).validate(answer.json())


def test_a_checked_token_is_described_as_published(sandbox: Sandbox) -> None:
    github, token = sandbox.world["github"], sandbox.connect("github", "ada")["access_token"]
    path, basic = f"/applications/{github['client_id']}/token", (github["client_id"], github["client_secret"])
    answer = sandbox.github("POST", path, None, auth=basic, json={"access_token": token})
    github_rest()("POST", "/applications/{client_id}/token", 200).validate(answer.json())


def test_linear_serves_a_part_of_the_published_schema(linear_schema: GraphQLSchema) -> None:
    differences = [
        difference
        for name, ours in SCHEMA.type_map.items()
        if not name.startswith("__")
        for difference in _differences(name, ours, linear_schema)
    ]
    assert differences == []


@pytest.mark.parametrize(
    "query",
    [
        "query($url: String!) { attachmentsForURL(url: $url) { nodes { issue { id identifier } } } }",
        "mutation($i: IssueCreateInput!) { issueCreate(input: $i) { success issue { id identifier url } } }",
        "mutation($i: CommentCreateInput!) { commentCreate(input: $i) { success comment { id } } }",
    ],
)
def test_the_queries_of_these_tests_are_valid_there_too(linear_schema: GraphQLSchema, query: str) -> None:
    assert validate(linear_schema, parse(query)) == []


def test_what_slack_answers_is_as_published(sandbox: Sandbox) -> None:
    published = slack_web()
    token = sandbox.world["slack"]["workspaces"][0]["bot_token"]
    posted = sandbox.slack("chat.postMessage", token, channel="engineering", text="hello").json()
    cases: list[tuple[str, dict[str, Any]]] = [
        ("chat.postMessage", {"channel": "engineering", "text": "hello"}),
        ("chat.update", {"channel": posted["channel"], "ts": posted["ts"], "text": "hello all"}),
        ("auth.test", {}),
        ("auth.revoke", {"test": True}),
        ("conversations.list", {}),
    ]
    for method, fields in cases:
        for bearer, ok in ((token, True), ("xoxb-none", False)):
            answer = sandbox.slack(method, bearer, **fields).json()
            assert (method, answer["ok"]) == (method, ok)
            published(method, ok).validate(answer)


def _differences(name: str, ours: Any, published: GraphQLSchema) -> list[str]:
    """Where our type says something the published one of that name does not."""
    theirs = published.type_map.get(name)
    if isinstance(ours, GraphQLScalarType | GraphQLEnumType):
        return [] if theirs is not None else [name]
    assert isinstance(ours, GraphQLObjectType | GraphQLInputObjectType)
    if not isinstance(theirs, GraphQLObjectType | GraphQLInputObjectType | GraphQLInterfaceType):
        return [name]
    found = []
    for field_name, field in ours.fields.items():
        there = theirs.fields.get(field_name)
        if there is None or str(there.type) != str(field.type):
            found.append(f"{name}.{field_name}")
            continue
        required = {key for key, argument in getattr(there, "args", {}).items() if str(argument.type).endswith("!")}
        arguments = getattr(field, "args", {})
        found += [f"{name}.{field_name}({key})" for key in required - set(arguments)]
        for key, argument in arguments.items():
            if key not in there.args or str(there.args[key].type) != str(argument.type):
                found.append(f"{name}.{field_name}({key})")
    return found
