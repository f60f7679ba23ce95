"""What a person at Slack is told of their command or press, by the receiver."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

from identity.http import Answer, Client, HttpRequest, NoAnswer, Outcome
from pipeline.model import Acceptance, DeliveryOutcome
from pipeline.workflow import Registry
from tasks.slack_command import file_from_slack
from tests.webhooks.parts import FORM, NOW, MemoryLedger, MemoryRing, slack_headers
from webhooks.app import create_app
from webhooks.replies import Replies, is_beside
from webhooks.settings import WebSettings

HOOK = "https://hooks.slack.com/actions/T1/1/canary-hook"


class Hooks:
    """Slack's end of a response_url."""

    def __init__(self) -> None:
        self.sent: list[HttpRequest] = []
        self.outcome: Outcome = Answer(status=200, headers={}, body=b"ok", elapsed=NOW - NOW)

    def send(self, request: HttpRequest, **_: Any) -> Outcome:
        self.sent.append(request)
        return self.outcome


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def slack(ledger: MemoryLedger, hooks: Hooks) -> FlaskClient:
    replies = Replies(cast("Client", hooks))
    registry = Registry([file_from_slack])
    settings = WebSettings(base_url="https://aswhom.example")
    return create_app(settings, ledger, registry, MemoryRing(), replies=replies, clock=lambda: NOW).test_client()


def typed(slack: FlaskClient, text: str) -> dict[str, Any]:
    """What Slack shows whoever typed it."""
    fields = {"token": "x", "team_id": "T1", "channel_id": "C1", "user_id": "U1", "command": "/aswhom", "text": text}
    body = urlencode(fields).encode()
    answer = slack.post("/webhooks/slack/sl", data=body, headers=slack_headers(body), content_type=FORM)
    assert answer.status_code == 200
    words: dict[str, Any] = answer.json  # type: ignore[assignment]
    assert words["response_type"] == "ephemeral", "it is for whoever typed it, not for the channel"
    return words


def press(slack: FlaskClient, value: str = f"apr_0123456789abcdef:{'a' * 64}", *, hook: str = HOOK) -> None:
    action = {"type": "button", "action_id": "aswhom.approve", "value": value}
    payload = {"type": "block_actions", "trigger_id": "1.2.c", "team": {"id": "T1"}, "user": {"id": "U7"}}
    body = urlencode({"payload": json.dumps({**payload, "actions": [action], "response_url": hook})}).encode()
    answer = slack.post("/webhooks/slack/sl", data=body, headers=slack_headers(body), content_type=FORM, buffered=True)
    assert (answer.status_code, answer.data) == (200, b"")


def accepted(outcome: DeliveryOutcome, reason: str, **more: Any) -> Acceptance:
    return Acceptance(delivery="dlv-1", outcome=outcome, reason=reason, **more)


def test_every_command_is_answered(slack: FlaskClient, ledger: MemoryLedger) -> None:
    for text in ("", "help", "issue"):
        assert typed(slack, text)["text"].endswith("What can be typed:\n/aswhom issue TITLE")
    ledger.answer = accepted(DeliveryOutcome.ACCEPTED, "1 job(s)", jobs=("job-1",))
    assert typed(slack, "issue x")["text"] == "Understood: it is under way."
    ledger.answer = accepted(DeliveryOutcome.ACCEPTED, "1 job(s)", jobs=("job-1",), unknown_user=True)
    assert "Nobody here knows you yet" in typed(slack, "issue x")["text"]
    ledger.answer = accepted(DeliveryOutcome.IGNORED, "no tenant has installation <!channel>")
    said = typed(slack, "issue x")["text"]
    assert "Nothing comes of that: no tenant has installation &lt;!channel&gt;. Ask" in said


@pytest.mark.parametrize(
    ("acceptance", "said"),
    [
        (accepted(DeliveryOutcome.ACCEPTED, "acme.bob answered"), "Your answer counts: acme.bob answered."),
        (accepted(DeliveryOutcome.REFUSED, "nobody's alias"), "Your answer does not count: nobody's alias."),
    ],
)
def test_whoever_pressed_is_told_what_came_of_it(
    slack: FlaskClient, ledger: MemoryLedger, hooks: Hooks, acceptance: Acceptance, said: str
) -> None:
    ledger.answer = acceptance
    press(slack)
    (sent,) = hooks.sent
    assert (sent.method, sent.url) == ("POST", HOOK)
    assert json.loads(sent.body) == {"response_type": "ephemeral", "replace_original": False, "text": said}
    assert {name.lower() for name in sent.headers} == {"content-type"}, "no token goes there"


def test_a_button_that_cannot_be_read_says_so_and_a_press_that_comes_again_nothing(
    slack: FlaskClient, ledger: MemoryLedger, hooks: Hooks
) -> None:
    press(slack, "x")
    assert "does not count" in json.loads(hooks.sent.pop().body)["text"]
    ledger.answer = accepted(DeliveryOutcome.DUPLICATE, "this delivery was accepted before")
    press(slack)
    assert hooks.sent == []


def test_a_reply_goes_to_the_provider_alone(slack: FlaskClient, hooks: Hooks, caplog: pytest.LogCaptureFixture) -> None:
    press(slack, hook="https://evil.example/actions/canary-hook")
    assert hooks.sent == []
    hooks.outcome = NoAnswer(reason="hooks.slack.com: no answer in time")
    press(slack)
    assert len(hooks.sent) == 1
    assert [record.__dict__.get("action") for record in caplog.records if record.levelname == "WARNING"] == [
        "reply.elsewhere",
        "reply.not_taken",
    ]
    assert "canary-hook" not in "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)


@pytest.mark.parametrize(
    ("url", "beside"),
    [
        ("https://hooks.slack.com/commands/T1/1/x", True),
        ("https://slack.com/x", True),
        ("http://hooks.slack.com/x", False),
        ("https://hooks.slack.com.evil.example/x", False),
        ("https://notslack.com/x", False),
        ("https://hooks.slack.com@evil.example/x", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_what_is_beside_slacks_api(url: str, beside: bool) -> None:
    assert is_beside(url, "https://slack.com/api") is beside
    assert not is_beside(url, "")
