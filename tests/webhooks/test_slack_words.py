"""What a person at Slack is told of their command or press, by the receiver."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

from identity.errors import Unavailable
from identity.http.client import Answer, Client, HttpRequest, NoAnswer, Outcome
from identity.model import AccessPattern
from pipeline.authoring.registry import Registry
from pipeline.model import Acceptance, Bell, DeliveryOutcome
from tasks.slack_command import file_from_slack
from tests.webhooks.parts import FORM, NOW, MemoryLedger, MemoryRing, slack_headers
from webhooks.app import create_app
from webhooks.replies import IN_ALL, WAITING, WITHIN, Replies, is_beside
from webhooks.settings import WebSettings
from webhooks.sources.slack_words import ASK

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
    ledger.is_held = True
    assert typed(slack, "issue x")["text"].startswith("Taken, and it waits: whoever runs this holds everything for now")
    ledger.is_held = False
    ledger.answer = accepted(DeliveryOutcome.ACCEPTED, "1 job(s)", jobs=("job-1",), unknown_user=True)
    said = typed(slack, "issue x")["text"]
    assert said.startswith("Understood, but nobody here knows you yet"), "it is under way, and not to be typed again"


def test_a_stranger_is_told_no_reason_and_nothing_that_can_be_typed(slack: FlaskClient, ledger: MemoryLedger) -> None:
    """Whoever installs a public app may type: the reason names the tenant, and the command that lets them in."""
    why = "slack-acme lists its installations, and T9 is not one: `aswhom installations add slack-acme T9 acme`"
    for text in ("issue x", "help"):
        ledger.answer = accepted(DeliveryOutcome.IGNORED, why, nobodys=True)
        said = typed(slack, text)["text"]
        assert said == "This is not set up here. Ask whoever runs this installation."
    ledger.answer = accepted(DeliveryOutcome.REFUSED, "workflow file_from_slack of tenant acme")
    assert typed(slack, "issue x")["text"] == "Nothing comes of that here. Ask whoever runs this installation."


def test_a_command_is_answered_though_what_can_be_typed_cannot_be_read(
    slack: FlaskClient, ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise Unavailable("the database has no turn")

    monkeypatch.setattr(ledger, "usages", away)
    assert typed(slack, "help")["text"].startswith("Nothing comes of that here")


@pytest.mark.parametrize(
    ("acceptance", "said"),
    [
        (
            accepted(DeliveryOutcome.ACCEPTED, "for us", told="acme.bob said <yes>"),
            "counts: acme.bob said &lt;yes&gt;.",
        ),
        (accepted(DeliveryOutcome.REFUSED, "for us", told="bob has answered"), "does not count: bob has answered."),
        (accepted(DeliveryOutcome.REFUSED, "add acme"), f"does not count: this is not set up here. {ASK}."),
        (accepted(DeliveryOutcome.UNRECOGNISED, "v1"), f"does not count: this button cannot be read. {ASK}."),
    ],
)
def test_whoever_pressed_is_told_what_came_of_it(
    slack: FlaskClient, ledger: MemoryLedger, hooks: Hooks, acceptance: Acceptance, said: str
) -> None:
    ledger.answer = acceptance
    press(slack)
    (sent,) = hooks.sent
    assert (sent.method, sent.url) == ("POST", HOOK)
    told = {"response_type": "ephemeral", "replace_original": False, "text": f"Your answer {said}"}
    assert json.loads(sent.body) == told
    assert {name.lower() for name in sent.headers} == {"content-type"}, "no token goes there"


def test_a_button_that_cannot_be_read_says_so_and_a_press_that_comes_again_nothing(
    slack: FlaskClient, ledger: MemoryLedger, hooks: Hooks
) -> None:
    press(slack, "x")
    assert "does not count" in json.loads(hooks.sent.pop().body)["text"]
    ledger.answer = accepted(DeliveryOutcome.DUPLICATE, "this delivery was accepted before")
    press(slack)
    assert hooks.sent == []


def test_a_chat_that_is_slow_holds_up_no_bell_of_its_delivery(ledger: MemoryLedger) -> None:
    rung: list[str] = []

    class Slow(Hooks):
        """It notes what was rung before it was asked."""

        def send(self, request: HttpRequest, **_: Any) -> Outcome:
            rung.extend(ring.rung)
            return super().send(request)

    ring = MemoryRing()
    replies = Replies(cast("Client", Slow()))
    settings = WebSettings(base_url="https://aswhom.example")
    app = create_app(settings, ledger, Registry([file_from_slack]), ring, replies=replies, clock=lambda: NOW)
    bell = Bell(job="job-1", tenant="acme", pattern=AccessPattern.SERVICE)
    ledger.answer = accepted(DeliveryOutcome.REFUSED, "for us", told="bob has answered", bells=(bell,))
    press(app.test_client())
    assert rung == ["job-1"]


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
        ("https://hooks.slack.com:443/x", True),
        ("https://hooks.slack.com:8443/x", False),
        ("https://hooks.slack.com:port/x", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_what_is_beside_slacks_api(url: str, beside: bool) -> None:
    assert is_beside(url, "https://slack.com/api") is beside
    assert not is_beside(url, "")
    assert is_beside("http://127.0.0.1:81/response", "http://127.0.0.1:81/api")
    assert not is_beside("http://127.0.0.1:82/response", "http://127.0.0.1:81/api")


class SlowHooks(Hooks):
    """A chat that takes its time for each, while more presses come in."""

    def __init__(self, *pressed_meanwhile: int, takes: Sequence[float] = ()) -> None:
        super().__init__()
        self.now = 0.0
        self.within: list[timedelta] = []
        self.pressed_meanwhile = list(pressed_meanwhile)
        self.takes = list(takes)
        self.replies = Replies(cast("Client", self), monotonic=lambda: self.now)

    def reply(self) -> None:
        response = Response()
        self.replies.send_after(response, HOOK, {"text": "x"}, api_url="https://slack.com/api")
        response.close()

    def send(self, request: HttpRequest, **more: Any) -> Outcome:
        within: timedelta = more["within"]
        pressed = self.pressed_meanwhile.pop(0) if self.pressed_meanwhile else 0
        for _press in range(pressed):
            self.reply()
        self.within.append(within)
        self.now += self.takes.pop(0) if self.takes else within.total_seconds()
        return NoAnswer(reason="no answer in time")


def _dropped(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.__dict__["replies"] for record in caplog.records if record.__dict__.get("action") == "reply.dropped"]


def test_a_chat_that_hangs_holds_a_thread_for_so_long_in_all_and_what_is_dropped_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hooks = SlowHooks(5)
    hooks.reply()
    assert hooks.now == IN_ALL.total_seconds()
    assert len(hooks.within) + sum(_dropped(caplog)) == 6
    assert _dropped(caplog) != []
    hooks.reply()
    assert hooks.now > IN_ALL.total_seconds(), "another reply has a time of its own"


def test_a_reply_that_came_while_others_hung_is_tried_for_as_long_as_any(caplog: pytest.LogCaptureFixture) -> None:
    hooks = SlowHooks(2, 1)
    hooks.reply()
    assert _dropped(caplog) == [1], "of those that came with the first the second was never tried"
    assert hooks.within == [WITHIN, WITHIN, WITHIN], "the one that came while the second hung"


def test_what_has_hardly_any_time_left_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    hooks = SlowHooks(2, takes=[4.5, 4.6])
    hooks.reply()
    assert (len(hooks.within), _dropped(caplog)) == (2, [1])


def test_what_more_is_pressed_than_waits_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    SlowHooks(WAITING + 1).reply()
    assert _dropped(caplog)[0] == 1
