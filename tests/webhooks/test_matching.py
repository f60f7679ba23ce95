"""What one workflow's own functions make of a delivery is that workflow's alone."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import BaseModel
from standardwebhooks import Webhook

from identity.secret import Secret
from pipeline.authoring.registry import Registry
from pipeline.workflow import Event, ExternalUser, Trigger, workflow
from tests.webhooks.parts import JSON, NOW, SECRET, MemoryLedger, MemoryRing, Secrets, github_headers, registry
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


class Numbered(Event):
    number: int


def test_a_body_of_another_shape_is_said_for_the_workflow_that_cannot_read_it(caplog: pytest.LogCaptureFixture) -> None:
    """Also where others take the delivery: its jobs would just not be there."""
    ledger = MemoryLedger()
    faulty = _listener(read=lambda body: Numbered.model_validate(body["issue"] | {"number": "seven"}))
    workflows = Registry([*registry(), *faulty])
    web = create_app(WebSettings(base_url="https://a.example"), ledger, workflows, MemoryRing(), clock=lambda: NOW)
    misread = partial(REGISTRY.get_sample_value, "aswhom_deliveries_misread_total", {"workflow": "faulty"})
    before = misread()
    assert before is not None, "Prometheus sees no increase where a series begins at 1"
    web.test_client().post("/webhooks/github/gh", data=BODY, headers=github_headers(BODY), content_type=JSON)
    assert misread() == before + 1
    assert [made.outcome for _, made in ledger.accepted] == ["accepted"]
    (told,) = [record for record in caplog.records if record.__dict__.get("action") == "trigger.misread"]
    assert (told.levelname, told.__dict__["workflow"], told.__dict__["delivery"]) == ("ERROR", "faulty", "dlv-1")
    assert "lacks or mistypes: number" in told.getMessage()


class Raw(Event):
    body: bytes


class Measured(Event):
    amount: float


class Amount(BaseModel):
    value: float


class Nested(Event):
    amount: Amount


class Loud(Seen):
    @property
    def loud(self) -> str:
        return str(self.said["action"]).upper()


@pytest.mark.parametrize(
    ("event", "read", "says"),
    [
        (Seen, lambda body: {"said": dict(body)}, "AttributeError"),
        (Seen, lambda body: Raw(body=b""), "reads what is no Seen, as its event= says: said"),
        (Raw, lambda body: Raw(body=b"canary \xff"), "UnicodeDecodeError"),
        (Measured, lambda body: Measured.model_validate({"amount": "Infinity"}), "lacks or mistypes: amount"),
        (Nested, lambda body: Nested.model_validate({"amount": {"value": "NaN"}}), "ValueError"),
    ],
    ids=["no model", "another event", "no text", "no number", "no JSON"],
)
def test_an_event_that_the_ledger_could_not_hold_is_that_workflows_misfit(
    event: type[Event], read: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    trigger = Trigger[Any](source="github", event="issues", read=read)
    faulty = workflow(agent="tester", uses={}, event=event, on=trigger, name="faulty")(_act)
    (found,) = Registry([faulty]).consider("github", "issues", {"action": "opened"})
    assert (found.match, found.misfit) == (None, True)
    assert says in found.refusal
    assert "canary" not in found.refusal + caplog.text
    beside = Registry([faulty, *registry()])
    (match,) = beside.match("github", "issues", {"action": "opened", "issue": {"number": 7}})
    assert match.document == {"number": 7}


@pytest.mark.parametrize(("event", "read"), [(Loud, Seen), (Seen, Loud)])
def test_a_trigger_may_read_what_its_workflow_reads_as_its_own_event(event: type[Event], read: type[Event]) -> None:
    trigger = Trigger[Any](source="github", event="issues", read=lambda body: read.model_validate({"said": body}))
    declared = workflow(agent="tester", uses={}, event=event, on=trigger, name="loud")(_act)
    (match,) = Registry([declared]).match("github", "issues", {"action": "opened"})
    assert match.document == {"said": {"action": "opened"}}


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


@pytest.mark.parametrize("named", ["shop", ""])
@pytest.mark.parametrize("kind", ["hmac", "standard"])
def test_workflows_listen_to_a_sender_by_the_name_its_connection_gives_it(kind: str, named: str) -> None:
    config = {"sender": named} if named else {}
    body = b'{"type":"order.created","id":"o-1"}'
    if kind == "hmac":
        config |= {"signature_header": "X-Sig", "id_path": "id"}
        secret, headers = SECRET, {"X-Sig": hmac.digest(SECRET.encode(), body, "sha256").hex()}
    else:
        secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
        stamp, signature = str(int(NOW.timestamp())), Webhook(secret).sign("msg_1", NOW, body.decode())
        headers = {"webhook-id": "msg_1", "webhook-timestamp": stamp, "webhook-signature": signature}
    ledger = MemoryLedger()
    shop = Secrets(provider=kind, tenant="acme", config=config, webhook_secrets=(Secret(secret),))
    ledger.connections["shop-1"] = shop
    answers = {}
    for source in ("hmac", "standard", "shop"):
        trigger = Trigger(source=source, event="order.created", read=_read)
        listening = Registry([workflow(agent="tester", uses={}, event=Seen, on=trigger, name="listening")(_act)])
        web = create_app(WebSettings(base_url="https://a.example"), ledger, listening, MemoryRing(), clock=lambda: NOW)
        answer = web.test_client().post("/webhooks/" + kind + "/shop-1", data=body, headers=headers, content_type=JSON)
        answers[source] = (answer.get_json()["outcome"], answer.get_json().get("reason"))
    heard_as = named or kind
    assert answers.pop(heard_as) == ("accepted", None)
    assert set(answers.values()) == {("ignored", f"no workflow listens to {heard_as} order.created")}
    assert {delivery.source for delivery in ledger.deliveries} == {heard_as}  # by which a replay looks for workflows
