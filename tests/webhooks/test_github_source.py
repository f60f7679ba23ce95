"""GitHub's webhooks, read without a server."""

from __future__ import annotations

import hmac
import json
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.secret import Secret
from pipeline.signal import Asks, Installation, People
from tests.servers.shared_data import Example
from tests.webhooks import published
from tests.webhooks.disfigured import TEXTS, assert_sound, bodies
from tests.webhooks.flips import some_flips
from tests.webhooks.parts import FORM, JSON, NOW, SECRET, fault_of, github_headers, lower
from webhooks.sources.github import read, reread
from webhooks.sources.reading import Fault, Reading, Received

KEYS = (Secret(SECRET),)
SIGNALS = {
    ("github_app_authorization", "revoked"): Asks.REVOKE,
    ("installation", "deleted"): Asks.REVOKE,
    ("installation", "suspend"): Asks.SUSPEND,
    ("installation", "unsuspend"): Asks.RESUME,
    ("installation", "new_permissions_accepted"): Asks.RESCOPE,
    ("installation_repositories", "removed"): Asks.RENEW,
}
BODY = b'{"action":"opened","issue":{"number":7},"installation":{"id":42}}'


def _read(body: bytes, *, event: str = "issues") -> Reading:
    return read(lower(github_headers(body, event=event)), body, KEYS, NOW)


def _received(body: bytes, *, event: str = "issues") -> Received:
    reading = _read(body, event=event)
    assert isinstance(reading, Received)
    return reading


def _published(event: str) -> list[Example]:
    return [example for example in published.github() if example.event == event]


def test_the_documented_signature_is_accepted() -> None:
    vector = published.vectors()["github"]
    headers = lower({**github_headers(b""), **vector["headers"]})
    # "Hello, World!" is no JSON: that it is found malformed says that its signature was right
    assert fault_of(read(headers, vector["body"].encode(), (Secret(vector["secret"]),), NOW)) is Fault.MALFORMED
    assert fault_of(read(headers, vector["body"].encode(), KEYS, NOW)) is Fault.SIGNATURE


@pytest.mark.parametrize("event", sorted({example.event for example in published.github()}))
def test_every_published_payload_is_received_as_json_and_as_form_and_none_is_with_a_bit_flipped(event: str) -> None:
    for example in _published(event):
        body = example.body
        reading = _received(body, event=event)
        assert reading.event == event, example.name
        assert reading.unrecognised == "", example.name
        assert reading.document == json.loads(body), example.name

        form = urlencode({"payload": body.decode()}).encode()
        as_form = read(lower(github_headers(form, event=event), content_type=FORM), form, KEYS, NOW)
        assert as_form == reading, example.name
        headers = lower(github_headers(body, event=event))
        for flipped in some_flips(body):
            assert fault_of(read(headers, flipped, KEYS, NOW)) is Fault.SIGNATURE, example.name
        headers = lower(github_headers(form, event=event), content_type=FORM)
        for flipped in some_flips(form):
            assert fault_of(read(headers, flipped, KEYS, NOW)) is Fault.SIGNATURE, example.name


def test_a_published_payload_written_anew_is_refused() -> None:
    for example in published.github()[::7]:
        body = example.body
        again = json.dumps(json.loads(body)).encode()
        assert again != body
        headers = lower(github_headers(body, event=example.event))
        assert fault_of(read(headers, again, KEYS, NOW)) is Fault.SIGNATURE, example.name


ACCOUNT = {"id": 5, "account": {}, "suspended_at": "2026-01-01T00:00:00Z", "permissions": {"issues": "write"}}
FORESEEN = [
    *({"action": action, "installation": ACCOUNT, "repositories_removed": []} for _, action in SIGNALS),
    {"action": "revoked", "sender": {"id": 1}},
]


@given(
    body=bodies(*FORESEEN),
    event=TEXTS | st.sampled_from([event for event, _ in SIGNALS]),
    delivery=TEXTS | st.just("d-1"),
)
def test_whatever_is_signed_is_a_delivery_with_its_id_or_refused(body: str, event: str, delivery: str) -> None:
    for content_type, signed in ((JSON, body.encode()), (FORM, urlencode({"payload": body}).encode())):
        headers = github_headers(signed, event=event, delivery=delivery)
        assert_sound(read(lower(headers, content_type=content_type), signed, KEYS, NOW))


def test_sha1_alone_is_refused() -> None:
    headers = lower(github_headers(BODY))
    del headers["x-hub-signature-256"]
    headers["x-hub-signature"] = "sha1=" + hmac.digest(SECRET.encode(), BODY, "sha1").hex()
    assert fault_of(read(headers, BODY, KEYS, NOW)) is Fault.SIGNATURE


@pytest.mark.parametrize("name", ["x-github-event", "x-github-delivery"])
@pytest.mark.parametrize("value", [None, "", "a b", "x" * 201, "é", "a\n"])
def test_a_delivery_without_its_names_is_malformed(name: str, value: str | None) -> None:
    headers = lower(github_headers(BODY))
    headers.pop(name)
    if value is not None:
        headers[name] = value
    assert fault_of(read(headers, BODY, KEYS, NOW)) is Fault.MALFORMED


@pytest.mark.parametrize("form", [b"", b"payload=", b"payload=%7B%7D&payload=%7B%7D", b"other=%7B%7D", b"payload=%FF"])
def test_a_form_without_one_payload_is_malformed(form: bytes) -> None:
    assert fault_of(read(lower(github_headers(form), content_type=FORM), form, KEYS, NOW)) is Fault.MALFORMED


def test_a_signed_body_is_not_read_as_another_because_a_header_that_nobody_signed_says_so() -> None:
    """A title that anybody may write holds a field of a form, whose payload takes an installation away."""
    gone = json.dumps({"action": "deleted", "installation": {"id": 42, "account": {"id": 5}}})
    body = json.dumps({"action": "opened", "issue": {"title": f"a=b&{urlencode({'payload': gone})}&c="}}).encode()
    assert _received(body).signal is None
    headers = lower(github_headers(body, event="installation"), content_type=FORM)
    assert fault_of(read(headers, body, KEYS, NOW)) is Fault.MALFORMED
    form = urlencode({"payload": gone}).encode()
    assert fault_of(_read(form, event="installation")) is Fault.MALFORMED


def test_a_stored_body_says_what_it_said_when_it_came() -> None:
    form = urlencode({"payload": BODY.decode()}).encode()
    for body, content_type in ((BODY, JSON), (b" \n" + BODY, JSON), (form, FORM)):
        reading = read(lower(github_headers(body), content_type=content_type), body, KEYS, NOW)
        assert isinstance(reading, Received)
        assert reread(reading.event, reading.delivery_id, body) == reading


def test_the_installation_is_the_bodys_and_bodies_are_deduplicated() -> None:
    reading = _received(BODY)
    assert reading.installation == "42"
    assert reading.dedupe_by_body
    assert _received(b'{"installation":{"id":true}}').installation is None
    assert _received(b'{"installation":[]}').installation is None


def test_a_revoked_authorization_is_a_signal_and_never_a_repetition_of_its_body() -> None:
    reading = _received(b'{"action":"revoked","sender":{"id":1}}', event="github_app_authorization")
    assert reading.signal is not None
    assert (reading.signal.asks, reading.signal.whom) == (Asks.REVOKE, (People(ids=frozenset({"1"})),))
    assert reading.signal.happened_at is None
    assert reading.signal.source == "github.github_app_authorization"
    assert not reading.dedupe_by_body


def test_what_github_adds_to_a_revoked_authorization_some_day_does_not_hide_it() -> None:
    body = b'{"action":"revoked","sender":{"id":1},"organization":{"id":2},"authorization":{"id":3}}'
    reading = _received(body, event="github_app_authorization")
    assert reading.signal is not None
    assert not reading.unrecognised


def test_a_deleted_installation_is_a_signal() -> None:
    body = b'{"action":"deleted","installation":{"id":5,"account":{"id":9}},"sender":{"id":1}}'
    reading = _received(body, event="installation")
    assert reading.signal is not None
    assert (reading.signal.asks, reading.signal.whom) == (Asks.REVOKE, (Installation(id="5"),))
    assert not reading.dedupe_by_body


@pytest.mark.parametrize("event", sorted({example.event for example in published.github()}))
def test_no_other_published_body_revokes_under_a_forged_event_header(event: str) -> None:
    """The event's name is not signed: whoever replays a body chooses it."""
    for claimed in sorted({event for event, _ in SIGNALS}):
        for example in _published(event):
            reading = _received(example.body, event=claimed)
            genuine = event == claimed and (event, reading.document.get("action")) in SIGNALS
            assert (reading.signal is not None) is genuine, (example.name, claimed)


def test_what_claims_to_revoke_and_has_another_shape_is_unrecognised() -> None:
    for event, body in [
        ("github_app_authorization", b'{"action":"revoked"}'),
        ("github_app_authorization", b'{"action":"revoked","sender":{"id":"1"}}'),
        ("github_app_authorization", b'{"action":"revoked","sender":{"id":1},"alert":{}}'),
        ("github_app_authorization", b'{"action":"revoked","sender":{"id":1},"repository":{}}'),
        ("installation", b'{"action":"deleted","comment":{},"installation":{"id":5}}'),
        ("installation", b'{"action":"deleted","installation":5}'),
        ("installation", b'{"action":"suspend","installation":{"id":5,"account":{},"suspended_at":null}}'),
        ("installation", b'{"action":"unsuspend","installation":{"id":5,"account":{},"suspended_at":"2026-01-01"}}'),
        ("installation", b'{"action":"new_permissions_accepted","installation":{"id":5,"account":{}}}'),
        (
            "installation",
            b'{"action":"new_permissions_accepted","installation":{"id":5,"account":{},"permissions":{"\\u0000":"write"}}}',
        ),
        ("installation_repositories", b'{"action":"removed","installation":{"id":5,"account":{}}}'),
    ]:
        reading = _received(body, event=event)
        assert reading.signal is None
        assert reading.unrecognised


def test_what_the_published_payloads_say_of_authority() -> None:
    read_as = {}
    for example in published.github():
        reading = _received(example.body, event=example.event)
        if reading.signal is not None:
            read_as[example.event, reading.document["action"]] = reading.signal
            assert not reading.dedupe_by_body
    assert {key: signal.asks for key, signal in read_as.items()} == SIGNALS
    suspended = read_as["installation", "suspend"]
    assert suspended.whom == (Installation(id="16598467"),)
    assert suspended.happened_at == datetime(2021, 4, 29, 2, 32, 50, tzinfo=UTC)
    assert read_as["installation", "unsuspend"].happened_at == suspended.happened_at  # an offset, and the same second
    accepted = read_as["installation", "new_permissions_accepted"].scopes
    assert accepted is not None
    assert {"issues:write", "issues:read", "metadata:read"} < accepted
    assert "metadata:write" not in accepted


def test_a_ping_says_that_all_is_well() -> None:
    assert "ping" in _received(b'{"zen":"Design for failure.","hook":{"id":1}}', event="ping").note
