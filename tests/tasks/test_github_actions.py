"""GitHub's actions, held against its OpenAPI document and the answers it gives as examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.accounts.abilities import in_words
from pipeline.action import Action, Call, Recovery, Response, UnreadableAnswer, Verdict
from tasks.actions import github
from tasks.actions.github_marker import PAGE
from tests.tasks.calls import make_call
from tests.tasks.published import GitHubDocument, Unpublished

Answer = Callable[..., Response]

PULL = github.GetPull(repo="acme/shop", number=42)
PULLS = github.ListPulls(repo="acme/shop")
COMMENT = github.Comment(repo="acme/shop", number=42, body="Tracked as ENG-7")
ISSUE = github.CreateIssue(repo="acme/shop", title="Broken", body="It broke.", labels=("bug",))
LABELS = github.AddLabels(repo="acme/shop", number=42, labels=("bug", "ui"))
UPDATE = github.UpdateIssue(repo="acme/shop", number=42, title="Mended", state="closed", state_reason="completed")
ALL: list[Action[Any]] = [PULL, PULLS, COMMENT, ISSUE, UPDATE, LABELS]
PROBED: list[Action[Any]] = [COMMENT, ISSUE]


def issue(number: int, *, body: str | None = None, created_at: str = "2026-03-01T12:00:31Z") -> dict[str, Any]:
    url = f"https://github.com/acme/shop/issues/{number}"
    return {"id": 1000 + number, "number": number, "html_url": url, "body": body, "created_at": created_at}


def comment(number: int, *, body: str = "Me too") -> dict[str, Any]:
    return {"id": number, "html_url": f"https://github.com/acme/shop/issues/42#issuecomment-{number}", "body": body}


@pytest.mark.parametrize("action", ALL, ids=lambda action: action.action_name())
def test_every_request_is_one_that_github_documents(
    action: Action[Any], call: Call, github_document: GitHubDocument
) -> None:
    github_document.check(action.request(call))
    if action.facts.recovery is Recovery.PROBE:
        github_document.check(action.probe(call))


def test_a_request_that_github_does_not_document_is_noticed(call: Call, github_document: GitHubDocument) -> None:
    probe = COMMENT.probe(call)
    sorted_probe = type(probe)(method=probe.method, path=probe.path, params={**probe.params, "sort": "created"})
    with pytest.raises(Unpublished, match="takes no parameter sort"):
        github_document.check(sorted_probe)


@pytest.mark.parametrize("action", ALL, ids=lambda action: action.action_name())
def test_the_same_call_makes_the_same_request(action: Action[Any], call: Call) -> None:
    again = type(action).model_validate_json(action.model_dump_json())
    assert action.request(call) == again.request(call)
    assert action.request_hash() == again.request_hash()


def test_the_documented_pull_request_is_read(answer: Answer, github_document: GitHubDocument) -> None:
    example = github_document.example("get", "/repos/{owner}/{repo}/pulls/{pull_number}", "200")
    pull = PULL.read(answer(example))
    assert pull.key == "octocat/Hello-World#1347"
    assert pull.labels == ("bug",)
    assert pull.author is not None
    assert (pull.author.provider, pull.author.id, pull.author.login) == ("github", "1", "octocat")


def test_the_documented_list_of_pull_requests_is_read(answer: Answer, github_document: GitHubDocument) -> None:
    example = github_document.example("get", "/repos/{owner}/{repo}/pulls", "200")
    found = PULLS.read(answer(example))
    assert [pull.number for pull in found.pulls] == [1347]
    assert not found.more
    assert PULLS.read(answer(example * 100)).more


def test_every_pull_request_of_many_can_be_read_from_either_end(
    call: Call, answer: Answer, github_document: GitHubDocument
) -> None:
    newest = github.ListPulls(repo="acme/shop", newest_first=True, size=2, page=2)
    asked = newest.request(call)
    github_document.check(asked)
    assert asked.params == {"state": "open", "sort": "created", "direction": "desc", "per_page": "2", "page": "2"}
    assert PULLS.request(call).params["direction"] == "asc"
    example = github_document.example("get", "/repos/{owner}/{repo}/pulls", "200")
    assert [newest.read(answer(example * many)).more for many in (1, 2)] == [False, True]


def test_what_was_made_is_read_from_the_documented_answers(answer: Answer, github_document: GitHubDocument) -> None:
    made = github_document.example("post", "/repos/{owner}/{repo}/issues", "201")
    assert ISSUE.external_id(ISSUE.read(answer(made, status=201))) == "1"
    said = github_document.example("post", "/repos/{owner}/{repo}/issues/{issue_number}/comments", "201")
    assert COMMENT.external_id(COMMENT.read(answer(said, status=201))) == "1"
    labels = github_document.example("post", "/repos/{owner}/{repo}/issues/{issue_number}/labels", "200")
    assert LABELS.read(answer(labels)).names == ("bug", "enhancement")
    updated = UPDATE.read(
        answer(github_document.example("patch", "/repos/{owner}/{repo}/issues/{issue_number}", "200"))
    )
    assert (updated.number, updated.title, updated.state) == (1347, "Found a bug", "open")
    assert UPDATE.external_id(updated) == "1"


def test_an_update_sends_what_is_given_and_nothing_else(call: Call) -> None:
    assert UPDATE.request(call).json == {"title": "Mended", "state": "closed", "state_reason": "completed"}
    assert github.UpdateIssue(repo="acme/shop", number=42, title="Why").request(call).json == {"title": "Why"}


def test_an_update_cannot_replace_the_text_that_carries_the_marker() -> None:
    with pytest.raises(ValidationError) as raised:
        github.UpdateIssue.model_validate({"repo": "acme/shop", "number": 42, "title": "Mended", "body": "Why"})
    assert [(error["loc"], error["type"]) for error in raised.value.errors()] == [(("body",), "extra_forbidden")]


def test_who_is_asked_for_consent_reads_that_an_update_also_reaches_pull_requests() -> None:
    assert in_words(github.UpdateIssue) == "Change the title or the state of an issue or pull request"


@pytest.mark.parametrize("changes", [{}, {"state_reason": "completed"}, {"state": "open", "state_reason": "completed"}])
def test_an_update_that_changes_nothing_or_gives_a_reason_for_no_closing_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        github.UpdateIssue.model_validate({"repo": "acme/shop", "number": 42, **changes})


@pytest.mark.parametrize("action", ALL, ids=lambda action: action.action_name())
def test_an_answer_of_another_shape_leaves_the_effect_unknown_and_is_not_quoted(
    action: Action[Any], answer: Answer
) -> None:
    with pytest.raises(UnreadableAnswer) as raised:
        action.read(answer({"id": "a secret"}))
    assert "a secret" not in str(raised.value)
    assert raised.value.__context__ is None
    with pytest.raises(UnreadableAnswer):
        action.read(Response(status=200, headers={}, body=b"<html>"))


def test_the_marker_ends_the_body_and_is_no_parameter(call: Call) -> None:
    for action in (COMMENT, ISSUE):
        assert action.request(call).json["body"].endswith(f"\n\n{call.marker}")
        assert "marker" not in action.model_dump()


@pytest.mark.parametrize("action", PROBED, ids=lambda action: action.action_name())
def test_a_probe_looks_back_beyond_the_step_as_far_as_clocks_may_differ(action: Action[Any], call: Call) -> None:
    assert action.probe(call).params["since"] == "2026-03-01T11:50:30Z"


def test_a_probe_adopts_what_carries_the_marker(call: Call, answer: Answer) -> None:
    listed = [comment(1), comment(2, body=f"Tracked as ENG-7\n\n{call.marker}")]
    found = COMMENT.found(answer(listed), call)
    assert found is not None
    assert found.id == 2
    issues = [issue(9, body=None), issue(8, body=f"It broke.\n\n{call.marker}")]
    filed = ISSUE.found(answer(issues), call)
    assert filed is not None
    assert (filed.number, filed.id) == (8, 1008)


def test_a_probe_that_has_seen_everything_says_no_effect(call: Call, answer: Answer) -> None:
    assert COMMENT.found(answer([]), call) is None
    assert COMMENT.found(answer([comment(number) for number in range(99)]), call) is None
    assert ISSUE.found(answer([issue(number) for number in range(99)]), call) is None
    assert COMMENT.found(answer([comment(1, body="<!-- aswhom:another -->")]), call) is None


def test_a_probe_that_may_have_missed_it_says_so(call: Call, answer: Answer) -> None:
    with pytest.raises(UnreadableAnswer, match="more than 100 comments"):
        COMMENT.found(answer([comment(number) for number in range(100)]), call)
    with pytest.raises(UnreadableAnswer, match="more than 100 issues"):
        ISSUE.found(answer([issue(number) for number in range(100)]), call)


def test_a_full_page_of_issues_that_reaches_back_beyond_the_step_is_enough(call: Call, answer: Answer) -> None:
    newest_first = [issue(number) for number in range(200, 101, -1)]
    assert ISSUE.found(answer([*newest_first, issue(101, created_at="2026-03-01T11:50:29Z")]), call) is None


@given(before=st.integers(0, 120), after=st.integers(0, 120), is_there=st.booleans())
def test_a_probe_never_says_no_effect_while_the_comment_may_be_there(before: int, after: int, is_there: bool) -> None:
    call = make_call()
    ours = [comment(1000, body=COMMENT.request(call).json["body"])] if is_there else []
    everything = [*(comment(number) for number in range(before)), *ours, *(comment(2000 + n) for n in range(after))]
    page = Response(status=200, headers={}, body=json.dumps(everything[:PAGE]).encode())
    try:
        found = COMMENT.found(page, call)
    except UnreadableAnswer:
        assert len(everything) >= PAGE
    else:
        assert (found is not None) == is_there


@pytest.mark.parametrize(
    "repo", ["acme", "acme/", "/shop", "acme/..", "acme/.", "acme/shop/pulls", "acme/sh op", "-a/b", "acme/shop\n"]
)
def test_a_repository_that_would_lead_elsewhere_is_refused(repo: str) -> None:
    with pytest.raises(ValidationError):
        github.GetPull(repo=repo, number=1)


@pytest.mark.parametrize("repo", ["acme/.github", "acme/shop.js", "corp_acme/a-b_c"])
def test_unusual_repositories_are_taken(repo: str, call: Call, github_document: GitHubDocument) -> None:
    github_document.check(github.GetPull(repo=repo, number=1).request(call))


def test_parameters_beyond_what_github_takes_are_refused() -> None:
    with pytest.raises(ValidationError):
        github.GetPull(repo="acme/shop", number=0)
    with pytest.raises(ValidationError):
        github.CreateIssue(repo="acme/shop", title="x" * 257, body="y")
    with pytest.raises(ValidationError):
        github.Comment(repo="acme/shop", number=1, body="")
    with pytest.raises(ValidationError):
        github.AddLabels(repo="acme/shop", number=1, labels=())
    with pytest.raises(ValidationError):
        github.GetPull.model_validate({"repo": "acme/shop", "number": 1, "token": "x"})


def test_the_longest_body_leaves_room_for_the_marker(call: Call) -> None:
    longest = github.Comment(repo="acme/shop", number=1, body="x" * 65_000)
    assert len(longest.request(call).json["body"]) <= 65_536


@pytest.mark.parametrize(
    ("status", "headers", "message", "wait"),
    [
        (403, {"retry_after": "7"}, "You have exceeded a secondary rate limit.", 7),
        (429, {"retry_after": "7"}, "", 7),
        (
            403,
            {"x_ratelimit_remaining": "0", "x_ratelimit_reset": "1772366500", "date": "Sun, 01 Mar 2026 12:00:00 GMT"},
            "API rate limit exceeded for installation ID 1.",
            100,
        ),
        (403, {"x_ratelimit_remaining": "0"}, "API rate limit exceeded.", 60),
        (403, {}, "You have exceeded a secondary rate limit.", 60),
        (429, {}, "", 60),
        (403, {}, "You have triggered an abuse detection mechanism. Please wait a few minutes.", 60),
        (422, {}, "Validation Failed: was submitted too quickly", 60),
    ],
)
def test_a_rate_limit_is_waited_out(
    answer: Answer, status: int, headers: dict[str, str], message: str, wait: int
) -> None:
    judged = COMMENT.judge(answer({"message": message}, status=status, **headers))
    assert judged.verdict is Verdict.RETRY
    assert judged.retry_after == timedelta(seconds=wait)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (201, Verdict.SUCCESS),
        (301, Verdict.FAILED),
        (401, Verdict.UNAUTHORIZED),
        (404, Verdict.FAILED),
        (410, Verdict.FAILED),
        (422, Verdict.FAILED),
        (500, Verdict.UNKNOWN),
        (502, Verdict.UNKNOWN),
        (503, Verdict.RETRY),
    ],
)
def test_what_an_answer_to_a_write_means(answer: Answer, status: int, verdict: Verdict) -> None:
    assert COMMENT.judge(answer({"message": "…"}, status=status)).verdict is verdict


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_repository_of_another_name_is_said_to_be_one(answer: Answer, status: int) -> None:
    judged = PULL.judge(answer({"message": "Moved Permanently"}, status=status))
    assert (judged.verdict, "renamed or moved" in judged.reason) == (Verdict.FAILED, True)


def test_a_plain_403_is_a_refusal(answer: Answer) -> None:
    refused = answer({"message": "Resource not accessible by integration"}, status=403, x_ratelimit_remaining="4999")
    assert COMMENT.judge(refused).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("status", "message", "headers", "said"),
    [
        (
            403,
            "Resource not accessible by integration",
            {"x_accepted_github_permissions": "issues=write"},
            "issues=write",
        ),
        (
            403,
            "Resource protected by organization SAML enforcement.",
            {"x_github_sso": "required; url=https://x"},
            "sign-on",
        ),
        (403, "Unable to create comment because issue is locked.", {}, "issue is locked"),
        (
            404,
            "Not Found",
            {"x_accepted_github_permissions": "issues=read; contents=read"},
            "issues=read; contents=read",
        ),
        (404, "Not Found", {}, "not visible to this account"),
        (410, "Issues are disabled for this repo", {}, "Issues are disabled"),
        (422, "Validation Failed", {}, "Validation Failed"),
        (451, "Repository access blocked", {}, "access blocked"),
    ],
)
def test_a_refusal_says_what_there_is_to_mend(
    answer: Answer, status: int, message: str, headers: dict[str, str], said: str
) -> None:
    judged = COMMENT.judge(answer({"message": message}, status=status, **headers))
    assert judged.verdict is Verdict.FAILED
    assert judged.reason.startswith(f"status {status}")
    assert said in judged.reason
    assert "https://" not in judged.reason  # an address for one person's sign-on


@pytest.mark.parametrize(
    "body", [{"message": "Bad token ghu_16C7e42F292c6912E7710c838347Ae178B4a"}, {"message": 7}, []]
)
@pytest.mark.parametrize("status", [403, 404, 422])
def test_a_refusal_quotes_nothing_that_may_be_a_token(answer: Answer, status: int, body: Any) -> None:
    wanted = "ghu_16C7e42F292c6912E7710c838347Ae178B4a"
    judged = COMMENT.judge(answer(body, status=status, x_accepted_github_permissions=wanted, x_github_sso=wanted))
    assert judged.verdict is Verdict.FAILED
    assert "ghu_" not in judged.reason


def test_a_refusal_names_what_of_the_request_github_does_not_take_and_none_of_its_values(answer: Answer) -> None:
    faults = [
        {"resource": "Label", "field": "name", "code": "invalid", "value": "a secret"},
        {"resource": "Label", "field": "name", "code": "invalid"},
        {"resource": "Issue", "field": "ghu_16C7e42F292c6912", "code": "missing_field", "message": "a secret"},
    ]
    judged = ISSUE.judge(answer({"message": "Validation Failed", "errors": faults}, status=422))
    said = "GitHub says: “Validation Failed”; Label name invalid, Issue missing_field"
    assert judged.reason == f"status 422; {said}"
    assert "invalid" not in ISSUE.judge(answer({"errors": ["invalid"]}, status=422)).reason


def test_a_read_that_broke_is_tried_again(answer: Answer) -> None:
    assert PULL.judge(answer({}, status=502)).verdict is Verdict.RETRY
