"""What one workflow's own functions make of a delivery is that workflow's alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.workflow import Event, ExternalUser, Registry, Trigger, workflow
from tests.webhooks.parts import JSON, NOW, MemoryLedger, MemoryRing, github_headers, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings

BODY = b'{"action":"opened","issue":{"number":7},"installation":{"id":42}}'


class Seen(Event):
    said: dict[str, Any]


def _read(body: Mapping[str, Any]) -> Seen:
    return Seen(said=dict(body))


def _unread(body: Mapping[str, Any]) -> Seen:
    return Seen(said=body["canary-of-nobody"])


def _act(run: Any, event: Seen) -> None:
    """What a job would do is not the web's business."""


def _listener(**more: Any) -> Registry:
    """One workflow, beside the one of `registry`."""
    trigger = Trigger(source="github", event="issues", read=more.pop("read", _read))
    declared = workflow(agent="tester", uses={}, event=Seen, on=trigger, name="faulty", **more)(_act)
    return Registry([declared])


@pytest.mark.parametrize(
    "functions",
    [
        {"read": _unread},
        {"user": lambda event: event.said["canary-of-nobody"]},
        {"triggered_by": lambda event: event.said["canary-of-nobody"]},
    ],
    ids=["read", "user", "triggered_by"],
)
def test_a_workflow_that_cannot_read_a_delivery_keeps_it_from_nobody_else(
    functions: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    ledger = MemoryLedger()
    for number, workflows in enumerate((Registry([*registry(), *_listener(**functions)]), _listener(**functions))):
        web = create_app(WebSettings(base_url="https://a.example"), ledger, workflows, MemoryRing(), clock=lambda: NOW)
        body = BODY + b" " * number
        headers = github_headers(body, delivery=f"d-{number}")
        answer = web.test_client().post("/webhooks/github/gh", data=body, headers=headers, content_type=JSON)
        assert answer.status_code == 202
    assert [made.outcome for _, made in ledger.accepted] == ["accepted", "unrecognised"]
    assert "KeyError" in ledger.accepted[-1][1].reason
    assert "KeyError" in caplog.text
    assert "canary" not in caplog.text + ledger.accepted[-1][1].reason


@pytest.mark.parametrize("text", ["a\x00b", "half a pair \ud83d", "x" * 201, 7])
def test_whom_the_ledger_cannot_name_is_said_and_starts_nothing(text: Any) -> None:
    (found,) = _listener(triggered_by=lambda event: text).consider("github", "issues", {})
    assert found.match is None
    assert found.misfit
    assert "triggered_by" in found.refusal
    assert found.refusal.isprintable()


@pytest.mark.parametrize("text", ["a\x00b", "half a pair \ud83d"])
def test_a_user_whose_id_the_ledger_cannot_look_up_is_said_and_starts_nothing(text: str) -> None:
    user = ExternalUser.model_construct(provider="github", id=text, login="ada")
    (found,) = _listener(user=lambda event: user).consider("github", "issues", {})
    assert (found.match, found.misfit) == (None, True)
    assert "user" in found.refusal
