"""The receiver: what is refused, what is kept, and when the bells ring."""

from __future__ import annotations

import gzip
import hmac
import io
import json
import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from prometheus_client import REGISTRY
from werkzeug.test import TestResponse

from identity.errors import Unavailable, Unconfirmed
from identity.sql.store import CommitUnknown
from pipeline.model import Acceptance, DeliveryOutcome, Unfollowed
from tests.servers import shared_data
from tests.servers.shared_data import Example
from tests.webhooks import published
from tests.webhooks.parts import (
    FORM,
    JSON,
    NOW,
    OLD_SECRET,
    SECRET,
    MemoryLedger,
    MemoryRing,
    Secrets,
    delivery_for,
    github_headers,
    registry,
    slack_headers,
)
from webhooks.app import create_app
from webhooks.quota import Quota, Rates, Spent
from webhooks.settings import WebSettings

OPENED = b'{"action":"opened","issue":{"number":7},"installation":{"id":42}}'
REVOKED = b'{"action":"revoked","sender":{"id":1}}'


def post(
    client: FlaskClient, body: bytes, *, connection: str = "gh", event: str = "issues", delivery: str = "d-1"
) -> TestResponse:
    headers = github_headers(body, event=event, delivery=delivery)
    path = f"/webhooks/github/{connection}"
    return client.post(path, data=body, headers=headers, content_type=JSON, buffered=True)


def problem(response: TestResponse, status: int, slug: str) -> str:
    """The detail of the problem document that *response* must be."""
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    document = json.loads(response.data)
    assert document.keys() == {"type", "title", "status", "detail"}
    assert (document["type"], document["status"]) == (f"urn:aswhom:problem:{slug}", status)
    assert document["detail"].endswith(".")
    return str(document["detail"])


def test_a_wanted_delivery_is_accepted_and_rung_for(
    client: FlaskClient, ledger: MemoryLedger, ring: MemoryRing
) -> None:
    response = post(client, OPENED)
    assert response.status_code == 202
    assert response.json == {"outcome": "accepted", "delivery": "dlv-1", "jobs": ["job-dlv-1-0"]}
    assert ring.rung == ["job-dlv-1-0"]
    (delivery,) = ledger.deliveries
    assert (delivery.source, delivery.connection, delivery.delivery_id) == ("github", "gh", "d-1")
    assert (delivery.event, delivery.installation, delivery.body) == ("issues", "42", OPENED)


def test_a_form_is_verified_as_it_was_sent_and_read_as_json(client: FlaskClient, ledger: MemoryLedger) -> None:
    form = urlencode({"payload": OPENED.decode()}).encode()
    response = client.post("/webhooks/github/gh", data=form, headers=github_headers(form), content_type=FORM)
    assert response.json["outcome"] == "accepted"  # type: ignore[index]
    assert ledger.deliveries[0].body == form
    assert ledger.deliveries[0].document == json.loads(OPENED)


def test_what_a_person_did_at_slack_is_accepted_and_answered_with_words_for_them_or_nothing(
    client: FlaskClient, ledger: MemoryLedger
) -> None:
    command = urlencode({"command": "/deploy", "team_id": "T1", "trigger_id": "1.2.a", "text": "main"}).encode()
    told = client.post("/webhooks/slack/sl", data=command, headers=slack_headers(command), content_type=FORM)
    assert (told.status_code, told.json["response_type"]) == (200, "ephemeral")  # type: ignore[index]
    pressed = json.dumps({"type": "block_actions", "team": {"id": "T1"}, "trigger_id": "1.2.b"})
    button = urlencode({"payload": pressed}).encode()
    response = client.post("/webhooks/slack/sl", data=button, headers=slack_headers(button), content_type=FORM)
    assert (response.status_code, response.data) == (200, b"")  # Slack would show them anything else
    assert [delivery.event for delivery in ledger.deliveries] == ["command", "block_actions"]
    assert ledger.deliveries[0].document["text"] == "main"


@pytest.mark.parametrize(("body", "kind", "status"), [(b'{"type":7}', JSON, 202), (b"payload=%7B%7D", FORM, 200)])
def test_what_slack_signed_is_kept_although_it_cannot_be_read_and_is_no_failure_to_slack(
    client: FlaskClient, ledger: MemoryLedger, body: bytes, kind: str, status: int
) -> None:
    response = client.post("/webhooks/slack/sl", data=body, headers=slack_headers(body), content_type=kind)
    assert response.status_code == status, response.data
    ((kept, acceptance),) = ledger.accepted
    assert (kept.event, kept.body, acceptance.outcome) == ("unreadable", body, DeliveryOutcome.UNRECOGNISED)


def test_that_a_sender_left_out_events_is_counted_and_logged(
    client: FlaskClient, ledger: MemoryLedger, caplog: pytest.LogCaptureFixture
) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("aswhom_webhooks_withheld_total", {"source": "slack"}) or 0

    before = counted()
    body = b'{"type":"app_rate_limited","team_id":"T1","minute_rate_limited":1518467820}'
    sent = partial(client.post, "/webhooks/slack/sl", data=body, headers=slack_headers(body), content_type=JSON)
    assert b"ignored" in sent().data
    assert counted() == before + 1
    (warned,) = [record for record in caplog.records if record.levelname == "WARNING"]
    told = warned.__dict__
    assert (told["action"], told["connection"], told["installation"]) == ("delivery.withheld", "sl", "T1")
    ledger.answer = Acceptance(delivery="dlv-1", outcome=DeliveryOutcome.DUPLICATE, reason="")
    sent()
    assert counted() == before + 1


def test_a_sender_is_read_as_its_connection_describes_it(client: FlaskClient, ledger: MemoryLedger) -> None:
    config = {"signature_header": "X-Sig", "id_path": "id", "sender": "shop"}
    ledger.connections["shop"] = Secrets(provider="hmac", tenant="acme", config=config)
    body = b'{"type":"order.created","id":"o-1"}'
    headers = {"X-Sig": hmac.digest(SECRET.encode(), body, "sha256").hex()}
    response = client.post("/webhooks/hmac/shop", data=body, headers=headers, content_type=JSON)
    assert response.status_code == 202
    (delivery,) = ledger.deliveries
    assert (delivery.source, delivery.event, delivery.delivery_id) == ("shop", "order.created", "o-1")
    again = client.post("/webhooks/hmac/shop", data=body, headers={"X-Sig": "0" * 64}, content_type=JSON)
    problem(again, 401, "signature-refused")


def test_a_duplicate_is_answered_with_what_the_first_one_started(client: FlaskClient, ledger: MemoryLedger) -> None:
    ledger.answer = Acceptance(
        delivery="dlv-1", outcome=DeliveryOutcome.DUPLICATE, reason="seen before", jobs=("job-1",)
    )
    response = post(client, OPENED, delivery="d-2")
    assert response.status_code == 202
    assert response.json == {"outcome": "duplicate", "delivery": "dlv-1", "reason": "seen before", "jobs": ["job-1"]}
    (delivery,) = ledger.deliveries
    assert (delivery.delivery_id, delivery.dedupe_by_body) == ("d-2", True)  # GitHub does not sign the id


def test_a_revocation_is_answered_as_a_signal_and_rung_for(
    client: FlaskClient, ledger: MemoryLedger, ring: MemoryRing
) -> None:
    ledger.answer = Acceptance(
        delivery="dlv-1", outcome=DeliveryOutcome.SIGNAL, reason="revoked", revocations=("rev-1", "rev-2")
    )
    response = post(client, REVOKED, event="github_app_authorization")
    assert response.status_code == 202
    assert response.json == {
        "outcome": "signal",
        "delivery": "dlv-1",
        "reason": "revoked",
        "revocations": ["rev-1", "rev-2"],
    }
    assert ring.rung == ["rev-1", "rev-2"]
    (delivery,) = ledger.deliveries
    assert delivery.signal is not None


def test_a_revocation_in_a_place_that_is_nobodys_is_counted_and_logged_as_a_warning(
    client: FlaskClient, ledger: MemoryLedger, caplog: pytest.LogCaptureFixture
) -> None:
    """It was answered and is not sent again: whoever was connected there goes on here."""

    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("aswhom_webhooks_total", {"source": "github", "outcome": outcome}) or 0

    body, before = REVOKED, (counted("nobody"), counted("signal"))
    why = "no tenant has T1"
    ledger.answer = Acceptance(delivery="dlv-1", outcome=DeliveryOutcome.SIGNAL, reason=why, nobodys=True)
    response = post(client, body, event="github_app_authorization")
    assert (response.status_code, response.json) == (202, {"outcome": "signal", "delivery": "dlv-1", "reason": why})
    assert (counted("nobody"), counted("signal")) == (before[0] + 1, before[1])
    (warned,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warned.__dict__["action"] == "delivery.nobody"
    strangers = {"reason": why, "nobodys": True, "strangers": True}
    ledger.answer = Acceptance(delivery="dlv-3", outcome=DeliveryOutcome.SIGNAL, **strangers)  # type: ignore[arg-type]
    post(client, body, event="github_app_authorization", delivery="d-3")
    assert counted("nobody") == before[0] + 1, "nobody was ever connected there"
    ledger.answer = Acceptance(delivery="dlv-2", outcome=DeliveryOutcome.IGNORED, reason=why, nobodys=True)
    post(client, body, delivery="d-2")
    assert counted("nobody") == before[0] + 1, "a stranger's delivery that revokes nothing"


def test_what_nobody_wants_is_kept_and_says_why(client: FlaskClient, ledger: MemoryLedger, ring: MemoryRing) -> None:
    for number, (event, body, why) in enumerate(
        [
            ("ping", b'{"zen":"Keep it logically awesome."}', "a ping: the webhook is set up, its signature is right"),
            ("star", b'{"action":"created"}', "no workflow listens to github star"),
            ("issues", b'{"action":"closed","issue":{"number":7}}', "no workflow wants it"),
        ],
        start=1,
    ):
        response = post(client, body, event=event, delivery=f"d-{number}")
        assert response.status_code == 202
        assert response.json == {"outcome": "ignored", "delivery": f"dlv-{number}", "reason": why}
    assert len(ledger.deliveries) == 3
    assert ring.rung == []


@pytest.mark.parametrize(
    ("event", "body"),
    [("issues", b'{"action":"opened","issue":{"number":"seven"}}'), ("installation", b'{"action":"deleted"}')],
)
def test_a_signed_delivery_of_another_shape_is_kept_as_unrecognised(
    client: FlaskClient, ledger: MemoryLedger, caplog: pytest.LogCaptureFixture, event: str, body: bytes
) -> None:
    response = post(client, body, event=event)
    assert response.status_code == 202
    assert response.json["outcome"] == "unrecognised"  # type: ignore[index]
    assert ledger.deliveries[0].body == body
    assert {record.levelname for record in caplog.records} == {"ERROR"}


@pytest.mark.parametrize(
    "path",
    ["/webhooks/github/none", "/webhooks/slack/gh", "/webhooks/gitlab/gh", "/webhooks/github/sl", "/webhooks/x/y"],
)
def test_no_such_connection_and_another_providers_are_told_apart_by_nobody(client: FlaskClient, path: str) -> None:
    response = client.post(path, data=OPENED, headers=github_headers(OPENED), content_type=JSON)
    here = client.post("/webhooks/github/none", data=OPENED, headers=github_headers(OPENED), content_type=JSON)
    problem(response, 404, "unknown-connection")
    assert response.data == here.data


@pytest.mark.parametrize("connection", ["gh", "gh-bare"])
def test_a_bad_signature_leaves_no_trace(client: FlaskClient, ledger: MemoryLedger, connection: str) -> None:
    headers = github_headers(OPENED, secret="guess")
    response = client.post(f"/webhooks/github/{connection}", data=OPENED, headers=headers, content_type=JSON)
    problem(response, 401, "signature-refused")
    assert ledger.accepted == []


def test_both_secrets_are_accepted_in_the_overlap_and_the_old_one_refused_after_it(
    client: FlaskClient, ledger: MemoryLedger
) -> None:
    headers = github_headers(OPENED, secret=OLD_SECRET)

    def answer(connection: str) -> int:
        path = f"/webhooks/github/{connection}"
        return client.post(path, data=OPENED, headers=headers, content_type=JSON).status_code

    assert answer("gh-rotating") == 202
    ledger.connections["gh-rotating"] = Secrets(provider="github")
    assert answer("gh-rotating") == 401


class _Arriving(io.BytesIO):
    """A body; when it was first read, by the clock that a sender's patience goes by."""

    at: float | None = None

    def readinto(self, buffer: Any) -> int:
        self.at = self.at or time.monotonic()
        return super().readinto(buffer)


class _Counting(Quota):
    """A count of deliveries that a Redis may keep waiting; when it was asked."""

    at: float = 0.0

    def refusal(self, key: str, own: int | None = None) -> Spent | None:
        self.at = time.monotonic()
        return super().refusal(key, own)


@pytest.mark.parametrize("kind", ["slack", "github"])
def test_a_sender_waits_since_its_request_arrived_and_only_where_no_person_does_since_its_body_did(
    ledger: MemoryLedger, kind: str
) -> None:
    """Slack gives up three seconds after it asked, and nothing is done later: whatever took the time meanwhile counts.

    GitHub has ten seconds, and bodies of megabytes, which come slowly over a slow line.
    """
    counting = _Counting(9, None)
    settings = WebSettings(base_url="https://aswhom.example")
    rates = Rates(tenant=counting, nobodys=counting, connection=None)
    app = create_app(settings, ledger, registry(), MemoryRing(), rates=rates, clock=lambda: NOW)
    body = b"command=%2Faswhom&text=hi&trigger_id=1.1.a" if kind == "slack" else OPENED
    path, headers = ("slack/sl", slack_headers(body)) if kind == "slack" else ("github/gh", github_headers(body))
    arriving = _Arriving(body)
    response = app.test_client().post(
        f"/webhooks/{path}",
        headers=headers,
        content_type=FORM if kind == "slack" else JSON,
        environ_overrides={"wsgi.input": arriving, "CONTENT_LENGTH": str(len(body))},
    )
    assert response.status_code in (200, 202)
    assert arriving.at is not None
    assert (ledger.began < arriving.at) is (kind == "slack")
    assert ledger.began < counting.at


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":' * 30_000, b'{"a":NaN}'], ids=lambda body: repr(body[:9]))
def test_a_signed_body_that_cannot_be_read_is_malformed(client: FlaskClient, body: bytes) -> None:
    problem(post(client, body), 400, "malformed")


class _Endless(io.RawIOBase):
    """A body that never ends, and counts what was read of it."""

    taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        self.taken += len(buffer)
        return len(buffer)


def test_a_body_over_the_cap_is_refused_by_its_word_and_by_its_bytes(client: FlaskClient) -> None:
    limit = 200_000
    exact = b'{"a":"' + b"x" * (limit - 8) + b'"}'
    assert len(exact) == limit
    assert post(client, exact).status_code == 202
    problem(post(client, exact + b" "), 413, "too-large")

    endless = _Endless()  # chunked: no Content-Length, and the server says where it ends
    response = client.post(
        "/webhooks/github/gh",
        headers=github_headers(b""),
        content_type=JSON,
        environ_overrides={"wsgi.input": endless, "wsgi.input_terminated": True},
    )
    problem(response, 413, "too-large")
    assert endless.taken < 2 * limit


def test_an_announced_giant_is_refused_unread(client: FlaskClient) -> None:
    endless = _Endless()
    response = client.post(
        "/webhooks/github/gh",
        headers=github_headers(b""),
        content_type=JSON,
        environ_overrides={"wsgi.input": endless, "CONTENT_LENGTH": "25000000"},
    )
    problem(response, 413, "too-large")
    assert endless.taken == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_an_encoded_body_is_refused_unread(client: FlaskClient, encoding: str) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    headers = {**github_headers(bomb), "Content-Encoding": encoding}
    response = client.post("/webhooks/github/gh", data=bomb, headers=headers, content_type=JSON)
    problem(response, 415, "encoded")


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "multipart/form-data; boundary=x", "application/jsonp"]
)
def test_another_content_type_is_refused(client: FlaskClient, content_type: str | None) -> None:
    headers = github_headers(OPENED)
    response = client.post("/webhooks/github/gh", data=OPENED, headers=headers, content_type=content_type)
    assert "application/json" in problem(response, 415, "content-type")


def test_a_content_type_may_say_its_charset(client: FlaskClient) -> None:
    headers = github_headers(OPENED)
    content_type = "Application/JSON; charset=utf-8"
    assert (
        client.post("/webhooks/github/gh", data=OPENED, headers=headers, content_type=content_type).status_code == 202
    )


def test_a_ledger_without_a_turn_answers_503_and_when_to_come_back(
    client: FlaskClient, ledger: MemoryLedger, ring: MemoryRing
) -> None:
    ledger.away = Unavailable("the disk is full", retry_after=timedelta(seconds=2.2))
    response = post(client, OPENED)
    problem(response, 503, "unavailable")
    assert response.headers["Retry-After"] == "3"
    assert ring.rung == []
    ledger.away = None
    assert post(client, OPENED).json["outcome"] == "accepted"  # type: ignore[index]


@pytest.mark.parametrize("error", [Unconfirmed("canary-77"), CommitUnknown("canary-77")], ids=["sure", "first"])
def test_a_delivery_whose_commit_was_not_confirmed_is_not_called_unstored(
    client: FlaskClient, ledger: MemoryLedger, error: Exception
) -> None:
    ledger.bug = error
    response = post(client, OPENED)
    problem(response, 503, "unavailable")
    assert "it may have been done, or not" in response.text
    assert "stored nothing" not in response.text
    assert "canary" not in response.text
    assert int(response.headers["Retry-After"]) >= 1


def test_a_signal_that_has_not_reached_everyone_is_answered_503_and_told_to_be_stored(
    client: FlaskClient, ledger: MemoryLedger, ring: MemoryRing
) -> None:
    ledger.away = Unfollowed("del_1", ("rev_1", "rev_1.1"))
    response = post(client, OPENED)
    problem(response, 503, "unavailable")
    assert "This is stored" in response.text
    assert response.headers["Retry-After"] == "10"
    response.close()
    assert ring.rung == ["rev_1", "rev_1.1"], "whom it reached is not left to housekeeping"


def test_slacks_challenge_is_answered_and_not_recorded(client: FlaskClient, ledger: MemoryLedger) -> None:
    body = b'{"type":"url_verification","challenge":"3eZbrw1a"}'
    response = client.post("/webhooks/slack/sl", data=body, headers=slack_headers(body), content_type=JSON)
    assert (response.status_code, response.json) == (200, {"challenge": "3eZbrw1a"})
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert ledger.accepted == []


def test_slack_is_told_about_clock_skew_with_401_and_so_is_our_log(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = b'{"type":"url_verification","challenge":"3eZbrw1a"}'
    headers = slack_headers(body, at=NOW - timedelta(hours=1))
    response = client.post("/webhooks/slack/sl", data=body, headers=headers, content_type=JSON)
    assert "clock skew" in problem(response, 401, "signature-refused")
    (refused,) = [record for record in caplog.records if record.getMessage() == "delivery refused"]
    assert vars(refused)["fault"] == "stale"


@pytest.mark.parametrize("example", published.github(), ids=lambda one: f"{one.event}-{one.name}")
def test_every_published_github_payload_is_answered_with_202(client: FlaskClient, example: Example) -> None:
    body = example.body
    assert post(client, body, event=example.event, delivery=delivery_for(body)).status_code == 202


def test_no_secret_signature_or_body_is_answered_or_logged(
    client: FlaskClient, ledger: MemoryLedger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "canary-body-93d0"
    body = json.dumps({"action": "opened", "issue": {"number": 7, "title": canary}}).encode()

    def answers() -> Iterator[TestResponse]:
        yield post(client, body)
        yield post(client, body + b"}")  # malformed
        yield post(client, body, connection="gh-bare")
        yield client.post("/webhooks/github/gh", data=body, headers=github_headers(b"other"), content_type=JSON)
        yield client.post("/webhooks/github/gh", data=body, headers=github_headers(body), content_type="text/plain")
        yield post(client, body.replace(b"7", b'"7"'), delivery="d-2")  # unrecognised
        ledger.bug = RuntimeError(f"INSERT failed [parameters: {canary!r}]")
        yield post(client, body, delivery="d-3")
        ledger.bug, ledger.away = None, Unavailable("busy")
        yield post(client, body, delivery="d-4")

    seen = list(answers())
    assert [response.status_code for response in seen] == [202, 400, 401, 401, 415, 202, 500, 503]
    told = "".join(f"{response.get_data(as_text=True)}{response.headers}" for response in seen)
    logged = "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "RuntimeError" in logged
    for secret in (SECRET, OLD_SECRET, canary, github_headers(body)["X-Hub-Signature-256"][7:]):
        assert secret not in told
        assert secret not in logged
        assert secret not in caplog.text


def test_a_crash_rings_nothing_and_is_a_problem(client: FlaskClient, ledger: MemoryLedger, ring: MemoryRing) -> None:
    ledger.bug = RuntimeError("boom")
    problem(post(client, OPENED), 500, "failed")
    assert ring.rung == []


def test_other_paths_and_methods_are_problems_too(client: FlaskClient) -> None:
    for response, status in ((client.get("/x"), 404), (client.get("/webhooks/github/gh"), 405)):
        assert response.content_type == "application/problem+json"
        assert json.loads(response.data)["status"] == status
        assert json.loads(response.data)["type"] == "about:blank"
    assert "POST" in client.get("/webhooks/github/gh").headers["Allow"]


def test_the_published_data_is_there() -> None:
    assert len(published.github()) > 100
    shared_data.folder()  # or nothing more to read
    assert len(published.slack()) > 50
    assert len(published.linear()) == 2
