"""Linear's actions, held against its published GraphQL schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from graphql import GraphQLSchema, parse, validate
from graphql.execution.values import get_variable_values
from graphql.language import OperationDefinitionNode
from pydantic import ValidationError

from pipeline.action import Action, Call, Recovery, Request, Response, UnreadableAnswer, Verdict
from tasks.actions import github, linear
from tasks.actions.linear_ids import chosen_id, is_ours
from tests.tasks.calls import make_call

Answer = Callable[..., Response]

TEAM = "9d6c0f0e-6f0c-4c1c-9b5a-0d8c5f5f7a11"
FILE = linear.CreateIssue(team_id=TEAM, title="acme/shop#42: bug", description="Pull request", label_ids=("1", "2"))
FIND = linear.FindByAttachmentUrl(url="https://github.com/acme/shop/pull/42")
ATTACH = linear.AttachUrl(issue_id="ENG-7", url="https://github.com/acme/shop/pull/42", title="acme/shop#42")
SAY = linear.Comment(issue_id="ENG-7", body="Merged.")
FILED = "Pull request [acme/shop#4](https://github.com/acme/shop/pull/4)"
OF_PULL = linear.FindIssuesOfPull(pull="acme/shop#4")
MOVE = linear.MoveIssue(issue_id=TEAM, state_id=TEAM)
ALL: list[Action[Any]] = [FILE, FIND, ATTACH, SAY, OF_PULL, MOVE]
CHOSEN: list[Action[Any]] = [FILE, SAY]
ISSUE = {
    "id": chosen_id(make_call()),
    "identifier": "ENG-7",
    "url": "https://linear.app/acme/issue/ENG-7",
}


def faults(request: Request, schema: GraphQLSchema) -> list[str]:
    """What is wrong with a request by the schema: its document, or the variables that go with it."""
    assert (request.method, request.path) == ("POST", "/graphql")
    document = parse(request.json["query"])
    found = [error.message for error in validate(schema, document)]
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    values = get_variable_values(schema, operation.variable_definitions or (), request.json["variables"])
    if isinstance(values, list):
        found += [error.message for error in values]
    return found


def refusal(kind: Any, *, message: str = "no", code: str = "", presentable: Any = "") -> dict[str, Any]:
    extensions = {"type": kind, "code": code, "userPresentableMessage": presentable}
    return {"errors": [{"message": message, "extensions": extensions}], "data": None}


@pytest.mark.parametrize("action", ALL, ids=lambda action: action.action_name())
def test_every_request_is_one_of_linears_schema(action: Action[Any], call: Call, linear_schema: GraphQLSchema) -> None:
    assert faults(action.request(call), linear_schema) == []
    if action.facts.recovery is Recovery.CLIENT_ID:
        assert faults(action.probe(call), linear_schema) == []


def test_a_request_that_is_not_of_the_schema_is_noticed(call: Call, linear_schema: GraphQLSchema) -> None:
    request = FILE.request(call)
    variables = {"input": {**request.json["variables"]["input"], "team": "ENG"}}
    wrong = replace(request, json={**request.json, "variables": variables})
    assert any("unknown field 'team'" in fault for fault in faults(wrong, linear_schema))
    wrong = replace(request, json={**request.json, "query": request.json["query"].replace("identifier", "identifer")})
    assert any("Cannot query field 'identifer'" in fault for fault in faults(wrong, linear_schema))


@pytest.mark.parametrize("action", ALL, ids=lambda action: action.action_name())
def test_the_same_call_makes_the_same_request(action: Action[Any], call: Call) -> None:
    again = type(action).model_validate_json(action.model_dump_json())
    assert action.request(call) == again.request(call)
    assert action.request_hash() == again.request_hash()


@pytest.mark.parametrize("action", CHOSEN, ids=lambda action: action.action_name())
def test_the_chosen_id_is_of_version_4_and_the_probe_asks_for_both_it_bore(action: Action[Any], call: Call) -> None:
    chosen = action.request(call).json["variables"]["input"]["id"]
    assert UUID(chosen).version == 4
    assert UUID(call.client_id).version == 5
    former = str(UUID(int=UUID(call.client_id).int, version=4))  # of a call from before an upgrade
    assert action.probe(call).json["variables"] == {"ids": [chosen, former]}


def test_two_steps_choose_two_ids(call: Call) -> None:
    other = replace(call, client_id="0b9c2a6e-3c1f-5b8d-9f2e-6d0a4c7e1b36")
    assert chosen_id(call) != chosen_id(other)
    assert is_ours(chosen_id(call))
    assert not any(map(is_ours, (call.client_id, "ENG-7", "", TEAM)))


def test_what_was_made_is_read(answer: Answer) -> None:
    filed = FILE.read(answer({"data": {"issueCreate": {"issue": ISSUE}}}))
    assert (FILE.external_id(filed), filed.identifier) == (ISSUE["id"], "ENG-7")
    made = {"id": "c1", "url": "https://linear.app/acme/issue/ENG-7#comment-c1"}
    assert SAY.read(answer({"data": {"commentCreate": {"comment": made}}})).id == "c1"
    assert ATTACH.read(answer({"data": {"attachmentCreate": {"attachment": made}}})).id == "c1"
    attached = {"data": {"attachmentsForURL": {"nodes": [{"issue": ISSUE}], "pageInfo": {"hasNextPage": True}}}}
    assert FIND.read(answer(attached)).more
    assert [issue.identifier for issue in FIND.read(answer(attached)).issues] == ["ENG-7"]


def test_a_mutation_that_made_nothing_leaves_the_effect_unknown(answer: Answer) -> None:
    with pytest.raises(UnreadableAnswer, match=r"data\.issueCreate\.issue"):
        FILE.read(answer({"data": {"issueCreate": {"issue": None}}}))
    with pytest.raises(UnreadableAnswer, match=r"lacks data\.issueCreate\.issue"):
        FILE.read(answer({"data": None}))


def test_a_probe_adopts_the_issue_with_our_id(call: Call, answer: Answer) -> None:
    found = FILE.found(answer({"data": {"issues": {"nodes": [ISSUE]}}}), call)
    assert found is not None
    assert found.identifier == "ENG-7"
    said = {"id": chosen_id(call), "url": "https://linear.app/x"}
    assert SAY.found(answer({"data": {"comments": {"nodes": [said]}}}), call) is not None


def test_a_probe_adopts_what_the_call_made_under_its_former_id(call: Call, answer: Answer) -> None:
    """The call was cut off by the stop before an upgrade, and its comment is there."""
    former = str(UUID(int=UUID(call.client_id).int, version=4))
    said = {"id": former, "url": "https://linear.app/x"}
    assert SAY.found(answer({"data": {"comments": {"nodes": [said]}}}), call) is not None
    filed = FILE.found(answer({"data": {"issues": {"nodes": [{**ISSUE, "id": former}]}}}), call)
    assert filed is not None
    assert filed.id == former


def test_a_probe_that_finds_nothing_says_no_effect(call: Call, answer: Answer) -> None:
    assert FILE.found(answer({"data": {"issues": {"nodes": []}}}), call) is None
    assert SAY.found(answer({"data": {"comments": {"nodes": []}}}), call) is None


def test_a_probe_that_ignored_the_filter_adopts_nothing_foreign(call: Call, answer: Answer) -> None:
    assert FILE.found(answer({"data": {"issues": {"nodes": [{**ISSUE, "id": "another"}]}}}), call) is None


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (refusal("authentication error", code="AUTHENTICATION_ERROR"), Verdict.UNAUTHORIZED),
        (refusal("ratelimited", code="RATELIMITED"), Verdict.RETRY),
        (refusal("", code="RATELIMITED"), Verdict.RETRY),
        (refusal("forbidden", code="FORBIDDEN"), Verdict.FAILED),
        (refusal("invalid input", code="INPUT_ERROR", message="Entity not found: Team"), Verdict.FAILED),
        (refusal("", code="GRAPHQL_VALIDATION_FAILED"), Verdict.FAILED),
        (refusal("invalid input", message="Entity already exists"), Verdict.UNKNOWN),
        (refusal("invalid input", message="conflict on insert of Issue"), Verdict.UNKNOWN),
        (refusal("invalid input", presentable="A duplicate id was given"), Verdict.UNKNOWN),
        (refusal("internal error", code="INTERNAL_SERVER_ERROR"), Verdict.UNKNOWN),
        (refusal("lock timeout"), Verdict.UNKNOWN),
        (refusal("something new"), Verdict.UNKNOWN),
        ({"errors": [{"message": "no extensions"}]}, Verdict.UNKNOWN),
        ({"errors": [{"message": None, "extensions": None}]}, Verdict.UNKNOWN),
        ({"errors": ["not as published"]}, Verdict.UNKNOWN),
        (refusal(None, code="AUTHENTICATION_ERROR"), Verdict.UNAUTHORIZED),
        (refusal("ratelimited", presentable=None), Verdict.RETRY),
        (refusal(None, message="Entity already exists"), Verdict.UNKNOWN),
        (refusal("forbidden", presentable={"in": "English"}), Verdict.FAILED),
    ],
)
def test_what_an_error_means_for_a_write(answer: Answer, status: int, body: dict[str, Any], verdict: Verdict) -> None:
    assert FILE.judge(answer(body, status=status)).verdict is verdict


def test_an_error_beside_data_may_have_been_done(answer: Answer) -> None:
    body = {"data": {"issueCreate": {"issue": None}}, "errors": refusal("forbidden")["errors"]}
    assert FILE.judge(answer(body)).verdict is Verdict.UNKNOWN
    assert FIND.judge(answer(body)).verdict is Verdict.RETRY


def test_one_refusal_beside_an_unknown_error_is_no_refusal(answer: Answer) -> None:
    body = {"errors": refusal("forbidden")["errors"] + refusal("internal error")["errors"]}
    assert FILE.judge(answer(body)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, Verdict.UNKNOWN), (401, Verdict.UNAUTHORIZED), (429, Verdict.RETRY), (502, Verdict.UNKNOWN)],
)
def test_an_answer_that_is_no_graphql_is_judged_by_its_status(status: int, verdict: Verdict) -> None:
    page = Response(status=status, headers={}, body=b"<html>")
    assert FILE.judge(page).verdict is verdict


def test_a_data_answer_is_a_success(answer: Answer) -> None:
    assert FILE.judge(answer({"data": {"issueCreate": {"issue": ISSUE}}})).verdict is Verdict.SUCCESS


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "5"}, 5),
        ({"x_ratelimit_requests_remaining": "0", "x_ratelimit_requests_reset": "1772366430000"}, 30),
        ({"x_ratelimit_complexity_remaining": "0", "x_ratelimit_complexity_reset": "1772366460"}, 60),
        ({"x_ratelimit_requests_remaining": "1", "x_ratelimit_requests_reset": "1772366430000"}, None),
        ({}, None),
    ],
)
def test_a_rate_limit_says_how_long(answer: Answer, headers: dict[str, str], wait: int | None) -> None:
    limited = answer(refusal("ratelimited"), status=400, date="Sun, 01 Mar 2026 12:00:00 GMT", **headers)
    expected = None if wait is None else timedelta(seconds=wait)
    assert FILE.judge(limited).retry_after == expected


def test_reasons_do_not_quote_what_linear_said(answer: Answer) -> None:
    judged = FILE.judge(answer(refusal("invalid input", message="the title was: a secret")))
    assert "secret" not in judged.reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("teamId must be a UUID.", "linear says: invalid input; “teamId must be a UUID”"),
        ("No such team: lin_oauth_16C7e42F292c6912", "linear says: invalid input"),
    ],
)
def test_a_refusal_says_what_linear_has_for_whoever_asked_in_plain_words(
    answer: Answer, words: str, reason: str
) -> None:
    body = refusal("invalid input")
    body["errors"][0]["extensions"]["userPresentableMessage"] = words
    assert FILE.judge(answer(body, status=400)).reason == reason


def test_the_issue_for_a_pull_request_does_not_depend_on_its_title() -> None:
    def pull(title: str, *labels: str) -> github.PullRequest:
        return github.PullRequest(
            repo="acme/shop",
            number=42,
            title=title,
            html_url="https://github.com/acme/shop/pull/42",
            state="open",
            draft=False,
            merged=False,
            author=None,
            labels=labels,
        )

    template = linear.IssueTemplate(team_id=TEAM, priority=2)
    before = linear.CreateIssue.for_pull(pull("WIP", "bug"), template, label="bug")
    after = linear.CreateIssue.for_pull(pull("Ready", "bug", "ui"), template, label="bug")
    assert before.request_hash() == after.request_hash()
    assert before.request_hash() != linear.CreateIssue.for_pull(pull("WIP"), template, label="ui").request_hash()


def test_parameters_beyond_what_linear_takes_are_refused() -> None:
    with pytest.raises(ValidationError):
        linear.CreateIssue(team_id=TEAM, title="x", description="y", priority=5)
    with pytest.raises(ValidationError):
        linear.AttachUrl(issue_id="ENG-7", url="javascript:alert(1)", title="x")
    with pytest.raises(ValidationError):
        linear.Comment(issue_id="", body="x")


def test_the_issues_of_a_pull_request_are_not_those_of_one_whose_number_begins_alike(call: Call) -> None:
    pull = github.PullRequest(
        repo="acme/shop",
        number=42,
        title="Fix it",
        html_url="https://github.com/acme/shop/pull/42",
        state="open",
        draft=False,
        merged=False,
        author=None,
        labels=(),
    )
    filed = linear.CreateIssue.for_pull(pull, linear.IssueTemplate(team_id=TEAM), label="bug")
    for key, found in (("acme/shop#42", True), ("acme/shop#4", False)):
        prefix = linear.FindIssuesOfPull(pull=key).request(call).json["variables"]["title"]
        assert filed.title.startswith(prefix) is found


def on_board(
    *, description: str | None = FILED, state: str = "backlog", columns: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """An issue as a search for those of acme/shop#4 shows it."""
    board = {"state": {"type": state}, "team": {"states": {"nodes": columns or []}}}
    return {**ISSUE, "description": description, **board}


@pytest.mark.parametrize(
    ("description", "ours"),
    [
        (FILED, True),
        (f"{FILED}\n\nAda looks at it.", True),
        ("Pull request [acme/shop#4](<https://github.com/acme/shop/pull/4>)", True),  # as an editor writes it
        ("Pull request https://github.com/acme/shop/pull/4", True),
        ("Pull request [acme/shop#42](https://github.com/acme/shop/pull/42)", False),
        ("Pull request [acme/shop#4](https://github.com/big-acme/shop/pull/4)", False),
        ("Follows https://github.com/acme/shop/pull/4", False),
        ("", False),
        (None, False),
    ],
)
def test_an_issue_that_somebody_else_gave_such_a_title_is_not_taken_for_one_that_was_filed(
    answer: Answer, description: str | None, ours: bool
) -> None:
    found = {"nodes": [on_board(description=description)], "pageInfo": {"hasNextPage": False}}
    read = OF_PULL.read(answer({"data": {"issues": found}}))
    assert bool(read.issues) is ours


def test_an_issue_that_is_done_or_has_nowhere_to_go_is_told_apart(answer: Answer) -> None:
    def node(state: str, *columns: tuple[str, float]) -> dict[str, Any]:
        nodes = [{"id": name, "position": position} for name, position in columns]
        return on_board(state=state, columns=nodes)

    nodes = [node("started", ("late", 9.5), ("first", 2)), node("canceled", ("first", 2)), node("backlog")]
    read = OF_PULL.read(answer({"data": {"issues": {"nodes": nodes, "pageInfo": {"hasNextPage": True}}}}))
    assert read.more
    assert [(issue.done, issue.done_state_id) for issue in read.issues] == [
        (False, "first"),
        (True, "first"),
        (False, None),
    ]
