"""Linear: organizations apart, client-given ids once, the creator is the token's."""

import time
import uuid
from typing import Any

import pytest

from tests.sandbox.driver import Sandbox

CREATE = """mutation($input: IssueCreateInput!) { issueCreate(input: $input) {
  success issue { id identifier title creator { name app } team { key } } } }"""
COMMENT = "mutation($input: CommentCreateInput!) { commentCreate(input: $input) { comment { id user { name } } } }"
LINK = """mutation($issueId: String!, $url: String!) {
  attachmentLinkURL(issueId: $issueId, url: $url, title: "PR") { success attachment { id } } }"""
FIND = "query($url: String!) { attachmentsForURL(url: $url) { nodes { issue { id identifier } } } }"


def team(sandbox: Sandbox, organization: int = 0) -> str:
    return str(sandbox.world["linear"]["organizations"][organization]["teams"][0]["id"])


def code_of(answer: Any) -> str:
    return str(answer.json()["errors"][0]["extensions"]["code"])


def test_an_issue_is_its_tokens_users(sandbox: Sandbox) -> None:
    token = sandbox.connect("linear", "ada")["access_token"]
    answer = sandbox.linear(token, CREATE, input={"teamId": team(sandbox), "title": "Fix it"})
    issue = answer.json()["data"]["issueCreate"]["issue"]
    assert issue["creator"] == {"name": "ada", "app": False}
    assert issue["identifier"].startswith("ENG-")


ISSUES = "query($first: Int) { issues(first: $first) { nodes { id title state { id } } } }"


def test_what_is_left_of_requests_and_of_complexity_is_said_and_beyond_either_is_a_refusal(sandbox: Sandbox) -> None:
    token, other = (sandbox.connect("linear", who)["access_token"] for who in ("ada", "grace"))

    def left(answer: Any) -> tuple[int, ...]:
        names = ("x-complexity", "x-ratelimit-requests-remaining", "x-ratelimit-complexity-remaining")
        return (answer.status_code, *(int(answer.headers[name]) for name in names))

    try:
        sandbox.order("linear", "limits", limit=3, seconds=3600)
        sandbox.order("linear", "limits", of="complexity", limit=250, seconds=3600, used=100)
        # An object with two properties, and in it one with one: of each of fifty nodes, where no fewer are asked for.
        assert left(sandbox.linear(token, ISSUES)) == (200, 115, 2, 35)
        again = sandbox.linear(token, ISSUES)
        assert (*left(again), code_of(again)) == (400, 115, 1, 35, "RATELIMITED")
        assert left(sandbox.linear(token, ISSUES, first=10)) == (200, 23, 0, 12)
        beyond = sandbox.linear(token, "{ viewer { id } }")
        assert (beyond.status_code, code_of(beyond)) == (400, "RATELIMITED")
        assert int(beyond.headers["x-ratelimit-requests-reset"]) > (time.time() + 3000) * 1000
        assert left(sandbox.linear(other, "{ viewer { id } }")) == (200, 2, 2, 148)
    finally:
        sandbox.order("linear", "limits", limit=5000, seconds=3600)
        sandbox.order("linear", "limits", of="complexity", limit=250_000, seconds=3600)


@pytest.mark.parametrize(
    ("query", "first", "points"),
    [
        (
            "query($first: Int) { issues(first: $first) { nodes { ...one } } } fragment one on Issue { id title }",
            10,
            12,
        ),
        ("query($first: Int) { issues(first: $first) { ... on IssueConnection { nodes { id title } } } }", 10, 12),
        ("{ __schema { types { name } } }", None, 3),
    ],
)
def test_every_valid_document_has_its_complexity(sandbox: Sandbox, query: str, first: int | None, points: int) -> None:
    token = sandbox.connect("linear", "ada")["access_token"]
    assert sandbox.linear(token, query, first=first).headers["x-complexity"] == str(points)


def test_a_page_size_of_another_type_is_graphqls_own_refusal(sandbox: Sandbox) -> None:
    token = sandbox.connect("linear", "ada")["access_token"]
    answer = sandbox.linear(token, ISSUES, first="x")
    assert answer.status_code < 500
    assert "errors" in answer.json()


def test_an_app_actor_is_the_app(sandbox: Sandbox) -> None:
    token = sandbox.connect("linear", "ada", actor="app")["access_token"]
    answer = sandbox.linear(token, CREATE, input={"teamId": team(sandbox), "title": "Fix it"})
    assert answer.json()["data"]["issueCreate"]["issue"]["creator"] == {"name": "aswhom-sandbox", "app": True}


def test_a_given_id_is_taken_once(sandbox: Sandbox) -> None:
    token, chosen = sandbox.connect("linear", "ada")["access_token"], str(uuid.uuid4())
    fields = {"id": chosen, "teamId": team(sandbox), "title": "Once"}
    assert sandbox.linear(token, CREATE, input=fields).json()["data"]["issueCreate"]["issue"]["id"] == chosen
    again = sandbox.linear(token, CREATE, input=fields)
    error = again.json()["errors"][0]
    assert (again.status_code, again.json()["data"]) == (200, None)
    assert error["message"] == "conflict on insert of Issue"
    assert error["extensions"]["code"] == "INPUT_ERROR"
    assert error["extensions"]["userPresentableMessage"] == f"Entity Issue with id {chosen} already exists."


def test_a_comments_id_is_taken_once_too(sandbox: Sandbox) -> None:
    token = sandbox.connect("linear", "grace")["access_token"]
    issue = sandbox.linear(token, CREATE, input={"teamId": team(sandbox), "title": "t"}).json()
    fields = {"id": str(uuid.uuid4()), "issueId": issue["data"]["issueCreate"]["issue"]["identifier"], "body": "b"}
    made = sandbox.linear(token, COMMENT, input=fields).json()["data"]["commentCreate"]["comment"]
    assert made == {"id": fields["id"], "user": {"name": "grace"}}
    assert code_of(sandbox.linear(token, COMMENT, input=fields)) == "INPUT_ERROR"


def test_an_issue_is_found_by_what_is_attached(sandbox: Sandbox) -> None:
    token, url = sandbox.connect("linear", "ada")["access_token"], f"http://127.0.0.1:1/{uuid.uuid4()}"
    made = sandbox.linear(token, CREATE, input={"teamId": team(sandbox), "title": "t"}).json()["data"]["issueCreate"]
    links = [sandbox.linear(token, LINK, issueId=made["issue"]["id"], url=url).json() for _ in range(2)]
    assert links[0] == links[1]
    found = sandbox.linear(token, FIND, url=url).json()["data"]["attachmentsForURL"]["nodes"]
    assert [node["issue"]["id"] for node in found] == [made["issue"]["id"]]
    stranger = sandbox.connect("linear", "linus")["access_token"]
    assert sandbox.linear(stranger, FIND, url=url).json()["data"]["attachmentsForURL"]["nodes"] == []


def test_an_issue_and_a_comment_are_found_by_their_ids(sandbox: Sandbox) -> None:
    ada, linus = (sandbox.connect("linear", name)["access_token"] for name in ("ada", "linus"))
    issue_id, comment_id = str(uuid.uuid4()), str(uuid.uuid4())
    sandbox.linear(ada, CREATE, input={"id": issue_id, "teamId": team(sandbox), "title": "t"})
    sandbox.linear(ada, COMMENT, input={"id": comment_id, "issueId": issue_id, "body": "b"})
    for kind, chosen in (("issues", issue_id), ("comments", comment_id)):
        find = f"query($id: ID!) {{ {kind}(filter: {{ id: {{ eq: $id }} }}, first: 1) {{ nodes {{ id }} }} }}"
        assert sandbox.linear(ada, find, id=chosen).json()["data"][kind]["nodes"] == [{"id": chosen}]
        assert sandbox.linear(ada, find, id=str(uuid.uuid4())).json()["data"][kind]["nodes"] == []
        assert sandbox.linear(linus, find, id=chosen).json()["data"][kind]["nodes"] == []


def test_another_organization_sees_nothing(sandbox: Sandbox) -> None:
    ada, linus = (sandbox.connect("linear", name)["access_token"] for name in ("ada", "linus"))
    issue = sandbox.linear(ada, CREATE, input={"teamId": team(sandbox), "title": "t"}).json()
    read = sandbox.linear(
        linus, "query($id: String!) { issue(id: $id) { id } }", id=issue["data"]["issueCreate"]["issue"]["id"]
    )
    assert code_of(read) == "INPUT_ERROR"
    assert code_of(sandbox.linear(linus, CREATE, input={"teamId": team(sandbox), "title": "t"})) == "INPUT_ERROR"
    teams = sandbox.linear(linus, "{ teams { nodes { id } } organization { urlKey } }").json()["data"]
    assert teams["organization"] == {"urlKey": "globex"}
    assert team(sandbox, 1) in {node["id"] for node in teams["teams"]["nodes"]}
    assert team(sandbox, 0) not in {node["id"] for node in teams["teams"]["nodes"]}


@pytest.mark.parametrize("token", [None, "lin_oauth_unknown"])
def test_without_a_live_token_it_is_401(sandbox: Sandbox, token: str | None) -> None:
    answer = sandbox.linear(token, "{ viewer { id } }")
    assert (answer.status_code, code_of(answer)) == (401, "AUTHENTICATION_ERROR")


def test_a_scope_that_was_not_granted_is_missed(sandbox: Sandbox) -> None:
    token = sandbox.connect("linear", "ada", scope="read")["access_token"]
    assert code_of(sandbox.linear(token, CREATE, input={"teamId": team(sandbox), "title": "t"})) == "FORBIDDEN"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ viewer { nonsense } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ viewer {", "GRAPHQL_PARSE_FAILED"),
        ("mutation { issueCreate(input: {title: 3}) { success } }", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
def test_it_is_strict_about_what_it_is_asked(sandbox: Sandbox, query: str, code: str) -> None:
    answer = sandbox.linear(sandbox.connect("linear", "ada")["access_token"], query)
    assert (answer.status_code, code_of(answer)) == (400, code)


def test_an_id_must_be_a_version_4_uuid(sandbox: Sandbox) -> None:
    token = sandbox.connect("linear", "ada")["access_token"]
    for chosen in ("nonsense", str(uuid.uuid5(uuid.NAMESPACE_URL, "x"))):
        answer = sandbox.linear(token, CREATE, input={"id": chosen, "teamId": team(sandbox), "title": "t"})
        assert code_of(answer) == "INVALID_INPUT"
