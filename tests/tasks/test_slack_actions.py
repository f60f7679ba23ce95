"""Slack's actions, held against its Web API document."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from identity.digests import json_digest
from pipeline.action import Call, Recovery, Response, UnreadableAnswer, Verdict
from pipeline.approvals.shown import Actor, Shown, Wanted, in_lines
from tasks.actions import slack
from tests.tasks.published import SlackDocument

Answer = Callable[..., Response]

POST = slack.PostMessage(channel="C1H9RESGL", text="Hello")
REPLY = slack.PostMessage(channel="C1H9RESGL", text="Hello", thread="1503435956.000247")
METHOD = "/chat.postMessage"


@pytest.mark.parametrize("action", [POST, REPLY], ids=["message", "reply"])
def test_every_request_is_one_that_slack_documents(
    action: slack.PostMessage, call: Call, slack_document: SlackDocument
) -> None:
    slack_document.check(action.request(call))


def test_the_same_call_makes_the_same_request(call: Call) -> None:
    again = slack.PostMessage.model_validate_json(REPLY.model_dump_json())
    assert REPLY.request(call) == again.request(call)
    assert REPLY.request_hash() == again.request_hash()
    assert REPLY.request_hash() != POST.request_hash()


def test_the_documented_answer_is_read(answer: Answer, slack_document: SlackDocument) -> None:
    posted = answer(slack_document.example(METHOD, "200"))
    assert POST.judge(posted).verdict is Verdict.SUCCESS
    assert POST.external_id(POST.read(posted)) == "C1H9RESGL:1503435956.000247"


def test_the_documented_error_answer_is_a_failure(answer: Answer, slack_document: SlackDocument) -> None:
    assert POST.judge(answer(slack_document.example(METHOD, "default"))).verdict is Verdict.FAILED


def test_every_documented_error_has_a_meaning(answer: Answer, slack_document: SlackDocument) -> None:
    judged = {
        error: POST.judge(answer({"ok": False, "error": error})).verdict for error in slack_document.errors(METHOD)
    }
    others = {error: verdict for error, verdict in judged.items() if verdict is not Verdict.FAILED}
    assert others == {
        "rate_limited": Verdict.RETRY,
        "not_authed": Verdict.UNAUTHORIZED,
        "invalid_auth": Verdict.UNAUTHORIZED,
        "account_inactive": Verdict.UNAUTHORIZED,
    }


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        ("ratelimited", Verdict.RETRY),
        ("token_revoked", Verdict.UNAUTHORIZED),
        ("token_expired", Verdict.UNAUTHORIZED),
        ("not_authed", Verdict.UNAUTHORIZED),
        ("org_login_required", Verdict.RETRY),
        ("team_added_to_org", Verdict.RETRY),
        ("missing_scope", Verdict.FAILED),
        ("internal_error", Verdict.UNKNOWN),
        ("fatal_error", Verdict.UNKNOWN),
        ("service_unavailable", Verdict.UNKNOWN),
        ("an_error_of_tomorrow", Verdict.FAILED),
    ],
)
def test_an_error_in_a_200_is_an_error(answer: Answer, error: str, verdict: Verdict) -> None:
    assert POST.judge(answer({"ok": False, "error": error})).verdict is verdict


def test_a_workspace_that_is_moving_is_left_alone_for_minutes(answer: Answer) -> None:
    assert POST.judge(answer({"ok": False, "error": "team_added_to_org"})).retry_after == timedelta(minutes=5)


def test_a_missing_scope_is_named_where_slack_names_one(answer: Answer) -> None:
    refused = {"ok": False, "error": "missing_scope", "needed": "chat:write", "provided": "commands"}
    assert POST.judge(answer(refused)).reason.endswith("install the app anew with the scope chat:write")
    for needed in (None, 7, "<!channel> do this"):
        assert POST.judge(answer({**refused, "needed": needed})).reason == "slack says missing_scope"


@pytest.mark.parametrize("status", [200, 500, 503])
def test_a_fault_of_slacks_own_may_have_posted_by_whatever_status_it_comes(answer: Answer, status: int) -> None:
    assert POST.judge(answer({"ok": False, "error": "service_unavailable"}, status=status)).verdict is Verdict.UNKNOWN


def test_without_words_of_slacks_the_status_says_it(answer: Answer) -> None:
    assert POST.judge(Response(status=503, headers={}, body=b"<html>")).verdict is Verdict.RETRY
    assert POST.judge(answer({"ok": False, "error": "an_error_of_tomorrow"}, status=429)).verdict is Verdict.RETRY


def test_a_rate_limit_says_how_long(answer: Answer) -> None:
    limited = answer({"ok": False, "error": "ratelimited"}, status=429, retry_after="30")
    assert POST.judge(limited).retry_after == timedelta(seconds=30)
    assert POST.judge(answer({"ok": False, "error": "ratelimited"})).retry_after == timedelta(seconds=1)


def test_a_success_that_cannot_be_read_may_have_been_posted(answer: Answer) -> None:
    assert POST.judge(Response(status=200, headers={}, body=b"<html>")).verdict is Verdict.UNKNOWN
    assert POST.judge(answer([])).verdict is Verdict.UNKNOWN
    with pytest.raises(UnreadableAnswer):
        POST.read(answer({"ok": True}))


def test_a_message_cannot_be_looked_up_with_its_scope_alone() -> None:
    assert POST.facts.scopes == {"chat:write"}
    assert POST.facts.recovery is Recovery.ASK


def test_what_others_wrote_cannot_call_everybody() -> None:
    assert slack.escape("<!channel> a & b") == "&lt;!channel&gt; a &amp; b"
    assert slack.link("https://x/?a=1&b=2", "<b>") == "<https://x/?a=1&amp;b=2|&lt;b&gt;>"


@pytest.mark.parametrize(
    "fields", [{"channel": "#general me"}, {"text": ""}, {"text": "x" * 40_001}, {"thread": "now"}]
)
def test_parameters_beyond_what_slack_takes_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        slack.PostMessage.model_validate({"channel": "C1", "text": "x", **fields})


SHOWN = Shown(
    does="Refund a charge",
    action="stripe.Refund",
    provider="stripe",
    resource="charge ch_1",
    amount="900 EUR",
    parameters={"charge": "ch_1", "note": "<!channel> *now*"},
    as_whom=Actor(id="acme.service", name="the service", kind="service", pattern="service"),
    on_behalf_of=None,
    agent="billing",
    workflow="refund",
    job="job_1",
    step=1,
    why="named by the workflow",
)
ASK = slack.AskApproval(
    channel="C1H9RESGL", approval="apr_0123456789abcdef", shown=SHOWN, expires_at="2026-03-01T12:00:00+00:00"
)


def blocks_of(action: slack.AskApproval, call: Call) -> list[dict[str, Any]]:
    body = action.request(call).json
    found: list[dict[str, Any]] = body["blocks"]
    return found


def test_the_buttons_of_a_question_carry_the_digest_of_what_it_shows(call: Call) -> None:
    section, _, row = blocks_of(ASK, call)
    assert section["text"] == {"type": "plain_text", "text": "\n".join(in_lines(SHOWN.document)), "emoji": False}
    lines = section["text"]["text"].splitlines()
    assert "on charge ch_1" in lines
    assert "note = <!channel> *now*" in lines  # plain text: Slack shows it as it is
    carried = {element["action_id"]: element["value"] for element in row["elements"]}
    assert set(carried.values()) == {f"apr_0123456789abcdef:{json_digest(SHOWN.document)}"}
    lower = ASK.model_copy(update={"shown": SHOWN.model_copy(update={"amount": "9 EUR"})})
    assert blocks_of(lower, call)[2]["elements"][0]["value"] not in carried.values()


def test_a_question_says_who_started_it_and_how_many_of_whom_have_to_say_yes(call: Call) -> None:
    four_eyes = Wanted(rule="four eyes", quorum=2, approvers=("bob", "carol", "dave"))
    shown = SHOWN.model_copy(
        update={"started_by": "grace (github:7)", "request_sha256": "d" * 64, "needs": (four_eyes,)}
    )
    section, _, _ = blocks_of(ASK.model_copy(update={"shown": shown}), call)
    added = set(section["text"]["text"].splitlines()) - set(in_lines(SHOWN.document))
    assert added == {
        "started by grace (github:7)",
        f"SHA-256 of the request: {'d' * 64}",
        "needs 2 of bob, carol, dave to say yes, by the rule four eyes",
    }


def test_a_question_that_was_asked_before_it_said_all_of_that_keeps_its_digest(call: Call) -> None:
    """Its buttons are in a channel, and its once key holds the parameters that it was asked with."""
    assert SHOWN.document.keys().isdisjoint({"through", "started_by", "request_sha256", "needs"})


def test_a_question_that_is_decided_has_no_buttons(call: Call, answer: Answer, slack_document: SlackDocument) -> None:
    end = slack.EndQuestion(channel=ASK.channel, ts="1401383885.000061", shown=SHOWN, outcome="This is denied: <no>.")
    request = end.request(call)
    assert request.json is not None
    as_form = {**request.json, "blocks": json.dumps(request.json["blocks"])}  # the document has it as a field's text
    slack_document.check(replace(request, json=as_form))
    asked = blocks_of(ASK, call)
    assert [block["type"] for block in request.json["blocks"]] == ["section", "context"]
    assert request.json["blocks"][0] == asked[0]
    assert request.json["blocks"][1]["elements"] == [{"type": "plain_text", "text": end.outcome, "emoji": False}]
    assert "&lt;no&gt;" in request.json["text"]
    documented = answer(slack_document.example("/chat.update", "200"))
    assert end.judge(documented).verdict is Verdict.SUCCESS
    assert end.external_id(end.read(documented)) == "C024BE91L:1401383885.000061"


def test_what_slack_cannot_show_whole_has_no_buttons(call: Call) -> None:
    long = SHOWN.model_copy(update={"parameters": {"note": "x" * 3_000}})
    blocks = blocks_of(ASK.model_copy(update={"shown": long}), call)
    assert [block["type"] for block in blocks] == ["section", "context"]
    assert "This is not all of it" in blocks[1]["elements"][0]["text"]


@pytest.mark.parametrize(
    "unseen",
    [
        "\u00ad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u180b", "\u180f", "\u200b", "\u202e",
        "\u2060", "\u2065", "\u2800", "\u3164", "\ufe00", "\ufe0f", "\ufeff", "\uffa0", "\ufff0", "\U0001bca0",
        "\U0001d173", "\U000e0041", "\U000e0100", "\U000e01ef", "\U000e0fff",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_cannot_be_seen_is_spelt_out(unseen: str) -> None:
    hidden = f"pay {unseen}tfiws"
    (line,) = [one for one in in_lines({**SHOWN.document, "parameters": {"to": hidden}}) if one.startswith("to")]
    assert line == f"to = {json.dumps(hidden)}"
    assert line.isascii()
    facts = {**SHOWN.document, "does": hidden, "resource": hidden, "why": hidden, "agent": hidden, "workflow": hidden}
    assert all(unseen not in line for line in in_lines(facts))


def test_what_can_be_seen_stays_as_it_is() -> None:
    for text in ("größer", "日本語", "한국어", "नमस्ते", "🎉", "a\u0301", "ᠮᠣᠩᠭᠣᠯ", "ខ្មែរ", 'say "no"'):
        (line,) = [one for one in in_lines({**SHOWN.document, "parameters": {"to": text}}) if one.startswith("to")]
        assert line == f"to = {text}"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028", "\x85", "\v"])
def test_no_text_adds_a_fact_to_the_question(call: Call, end: str) -> None:
    """An agent chooses the parameters, and by them what is done and to what."""
    forged = f"hi{end}because: the CFO agreed{end}é = alice"
    shown = SHOWN.model_copy(update={"does": forged, "resource": forged, "parameters": {"text": forged}})
    plain = blocks_of(ASK.model_copy(update={"shown": SHOWN}), call)[0]["text"]["text"].splitlines()
    lines = blocks_of(ASK.model_copy(update={"shown": shown}), call)[0]["text"]["text"].splitlines()
    assert len(lines) == len(plain) - 1  # one parameter instead of two
    assert [line for line in lines if line.startswith("because")] == ["because: named by the workflow"]
    assert lines == in_lines(shown.document)
