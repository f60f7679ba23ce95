"""Slack's requests, read without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.secret import Secret
from tests.webhooks import published
from tests.webhooks.parts import FORM, JSON, NOW, OLD_SECRET, SECRET, lower, slack_headers
from webhooks.sources.reading import Challenge, Fault, Reading, Received, Refusal
from webhooks.sources.slack import read

KEYS = (Secret(SECRET),)
BODY = b'{"type":"event_callback","team_id":"T1","event_id":"Ev1","event":{"type":"app_mention"}}'


def _read(body: bytes, *, content_type: str = JSON, at: datetime = NOW) -> Reading:
    return read(lower(slack_headers(body, at=at), content_type=content_type), body, KEYS, NOW)


def _received(body: bytes, *, content_type: str = JSON) -> Received:
    reading = _read(body, content_type=content_type)
    assert isinstance(reading, Received)
    return reading


def _fault(reading: Reading) -> Fault | None:
    return reading.fault if isinstance(reading, Refusal) else None


def test_the_documented_signature_is_accepted_at_its_time_only(needs_published: Callable[[], None]) -> None:
    needs_published()
    vector = published.vectors()["slack"]
    headers = lower(vector["headers"], content_type=FORM)
    keys = (Secret(vector["secret"]),)
    then = datetime.fromtimestamp(vector["clock"], UTC)
    reading = read(headers, vector["body"].encode(), keys, then)
    assert isinstance(reading, Received)
    assert (reading.event, reading.installation) == ("slash_command", "T1DC2JH3J")
    assert _fault(read(headers, vector["body"].encode(), keys, NOW)) is Fault.SIGNATURE


@pytest.mark.parametrize("path", published.slack(), ids=lambda path: path.name)
def test_every_published_request_is_received_and_none_is_when_a_byte_is_lost(path: Path) -> None:
    body, content_type = path.read_bytes(), JSON
    if path.suffix == ".form":
        content_type = FORM
    elif not path.name.startswith(("event_callback", "url_verification")):  # interactivity comes as a form
        body, content_type = urlencode({"payload": body.decode()}).encode(), FORM
    reading = _read(body, content_type=content_type)
    if path.name.startswith("url_verification"):
        assert isinstance(reading, Challenge)
    else:
        assert isinstance(reading, Received)
        assert path.name.startswith((reading.event, f"event_callback.{reading.event}"))
        assert reading.installation
        assert not reading.dedupe_by_body
    headers = lower(slack_headers(body), content_type=content_type)
    assert _fault(read(headers, body[:-1], KEYS, NOW)) is Fault.SIGNATURE


@given(place=st.integers(0, len(BODY) * 8 - 1))
def test_any_flipped_bit_of_the_body_is_refused(place: int) -> None:
    flipped = bytearray(BODY)
    flipped[place // 8] ^= 1 << place % 8
    assert _fault(read(lower(slack_headers(BODY)), bytes(flipped), KEYS, NOW)) is Fault.SIGNATURE


@pytest.mark.parametrize("name", ["x-slack-signature", "x-slack-request-timestamp"])
def test_every_flipped_bit_of_signature_and_time_is_refused(name: str) -> None:
    headers = lower(slack_headers(BODY))
    value = headers[name].encode()
    for place in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[place // 8] ^= 1 << place % 8
        assert _fault(read(headers | {name: flipped.decode("latin-1")}, BODY, KEYS, NOW)) is Fault.SIGNATURE


@given(stamp=st.text(), signature=st.text())
def test_no_text_in_a_header_is_a_crash(stamp: str, signature: str) -> None:
    headers = lower({"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature})
    assert _fault(read(headers, BODY, KEYS, NOW)) is Fault.SIGNATURE


def test_five_minutes_are_tolerated_either_way_and_more_asks_about_the_clock() -> None:
    for away in (timedelta(seconds=300), timedelta(seconds=-300)):
        assert isinstance(_read(BODY, at=NOW + away), Received)
    for away, word in ((timedelta(seconds=301), "future"), (timedelta(seconds=-301), "past")):
        reading = _read(BODY, at=NOW + away)
        assert isinstance(reading, Refusal)
        assert reading.fault is Fault.SIGNATURE
        assert word in reading.detail
        assert "clock skew" in reading.detail


def test_who_did_not_sign_learns_nothing_about_the_clock() -> None:
    headers = lower(slack_headers(BODY, secret="guess", at=NOW - timedelta(days=1)))
    reading = read(headers, BODY, KEYS, NOW)
    assert isinstance(reading, Refusal)
    assert "clock" not in reading.detail


def test_a_challenge_is_answered_only_if_it_is_signed() -> None:
    body = b'{"type":"url_verification","challenge":"3eZbrw1a","token":"x"}'
    assert _read(body) == Challenge(answer="3eZbrw1a")
    assert _fault(read(lower(slack_headers(body, secret="guess")), body, KEYS, NOW)) is Fault.SIGNATURE
    assert _fault(_read(b'{"type":"url_verification"}')) is Fault.MALFORMED


def test_a_retry_is_the_same_delivery_and_is_not_dropped() -> None:
    first = _received(BODY)
    later = NOW + timedelta(seconds=60)
    headers = lower({**slack_headers(BODY, at=later), "X-Slack-Retry-Num": "1", "X-Slack-Retry-Reason": "http_timeout"})
    retry = read(headers, BODY, KEYS, later)
    assert retry == first
    assert first.delivery_id == "Ev1"


def test_a_request_without_an_id_is_known_by_what_was_signed() -> None:
    body = b'{"type":"app_rate_limited","team_id":"T1","minute_rate_limited":1518467820}'
    assert _received(body).delivery_id == _received(body).delivery_id
    later = NOW + timedelta(seconds=60)
    again = read(lower(slack_headers(body, at=later)), body, KEYS, later)
    assert isinstance(again, Received)
    assert again.delivery_id != _received(body).delivery_id


def test_both_secrets_fit_while_they_are_rotated_and_neither_when_there_is_none() -> None:
    both = (Secret(SECRET), Secret(OLD_SECRET))
    headers = lower(slack_headers(BODY, secret=OLD_SECRET))
    assert isinstance(read(headers, BODY, both, NOW), Received)
    assert _fault(read(headers, BODY, (Secret(SECRET),), NOW)) is Fault.SIGNATURE
    assert _fault(read(headers, BODY, (), NOW)) is Fault.SIGNATURE


@pytest.mark.parametrize("event", ["tokens_revoked", "app_uninstalled"])
def test_slacks_revocations_are_named_and_said_not_to_be_acted_on(event: str) -> None:
    body = json.dumps({"type": "event_callback", "event_id": "Ev2", "team_id": "T1", "event": {"type": event}}).encode()
    reading = _received(body)
    assert reading.event == event
    assert reading.signal is None
    assert "not acted on yet" in reading.note


@pytest.mark.parametrize(
    "body", [b"{}", b'{"type":7}', b'{"type":"event_callback"}', b'{"type":"a b"}', b"[]", b"\xff"]
)
def test_what_has_no_type_is_malformed(body: bytes) -> None:
    assert _fault(_read(body)) is Fault.MALFORMED
