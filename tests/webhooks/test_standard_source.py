"""Standard Webhooks, read without a server; the reference library is the peer."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from identity.errors import Misconfigured
from identity.secret import Secret
from tests.webhooks import published
from tests.webhooks.disfigured import TEXTS, assert_sound, bodies
from tests.webhooks.parts import NOW, fault_of, lower
from tests.webhooks.signing import KEY, OTHER, PUBLIC, STAMP, by_private, by_shared
from webhooks.sources.reading import Fault, Reading, Received, Refusal
from webhooks.sources.standard import SOURCE, prohibits, read

BODY = b'{"type":"invoice.paid","timestamp":"2026-03-01T12:00:00Z","data":{"id":"in_1"}}'


def _read(headers: dict[str, str], body: bytes = BODY, *keys: str, now: datetime = NOW) -> Reading:
    return read(lower(headers), body, [Secret(key) for key in keys or (KEY,)], now)


def test_the_vector_of_the_reference_library_is_accepted_at_its_time_only() -> None:
    vector = published.vectors()["standard-webhooks"]
    body, then = vector["body"].encode(), datetime.fromtimestamp(vector["clock"], UTC)
    reading = _read(vector["headers"], body, vector["secret"], now=then)
    assert isinstance(reading, Received)
    assert (reading.event, reading.delivery_id) == ("untyped", "msg_p5jXN8AQM9LWM0D4loKWxJek")
    assert fault_of(_read(vector["headers"], body, vector["secret"], now=NOW)) is Fault.STALE


@given(
    data=st.dictionaries(st.text(), st.text()),
    id=st.from_regex(r"[A-Za-z0-9_.-]{1,60}", fullmatch=True),
    key=st.binary(min_size=24, max_size=64),
)
def test_what_the_reference_library_signs_is_received(data: dict[str, str], id: str, key: bytes) -> None:
    body = json.dumps({"type": "a.b", "data": data}).encode()
    secret = "whsec_" + base64.b64encode(key).decode()
    reading = _read(by_shared(body, secret, id=id), body, secret)
    assert isinstance(reading, Received)
    assert (reading.event, reading.delivery_id, reading.document["data"]) == ("a.b", id, data)
    assert not reading.dedupe_by_body  # the id is signed


@given(body=st.binary(max_size=200))
def test_no_signed_body_is_a_crash(body: bytes) -> None:
    assert fault_of(_read(by_private(body), body, PUBLIC)) in (Fault.MALFORMED, None)


FORESEEN = [{"type": "invoice.paid", "timestamp": "2026-03-01T12:00:00Z", "data": {"id": "in_1"}}]


@given(body=bodies(*FORESEEN), id=TEXTS, stamp=st.integers(-400, 400).map(lambda away: str(int(STAMP) + away)) | TEXTS)
def test_whatever_is_signed_is_a_delivery_with_its_id_or_refused(body: str, id: str, stamp: str) -> None:
    signed = body.encode()
    assert_sound(_read(by_private(signed, id=id, stamp=stamp), signed, PUBLIC))


def test_a_signature_by_the_senders_private_key_is_accepted_for_its_public_key_only() -> None:
    assert isinstance(_read(by_private(BODY), BODY, PUBLIC), Received)
    assert fault_of(_read(by_private(BODY), BODY, KEY)) is Fault.SIGNATURE
    # The public key is known to all: it must never pass for a shared one.
    shared = Webhook("whsec_" + PUBLIC.removeprefix("whpk_")).sign("msg_1", NOW, BODY.decode())
    assert fault_of(_read(by_private(BODY) | {"webhook-signature": shared}, BODY, PUBLIC)) is Fault.SIGNATURE


def test_one_signature_that_fits_one_live_key_is_enough_on_either_side_of_a_rotation() -> None:
    both = f"{by_shared(BODY, OTHER)['webhook-signature']} {by_shared(BODY)['webhook-signature']}"
    assert isinstance(_read(by_shared(BODY) | {"webhook-signature": both}), Received)
    assert isinstance(_read(by_shared(BODY, OTHER), BODY, KEY, OTHER), Received)


def test_five_minutes_are_tolerated_as_by_the_reference_library() -> None:
    for away, taken in ((299, True), (-299, True), (302, False), (-302, False)):
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=away)
        headers = by_shared(BODY, at=at)
        reading = _read(headers, now=datetime.now(UTC))
        assert isinstance(reading, Received) is taken
        try:
            Webhook(KEY).verify(BODY.decode(), headers)
        except WebhookVerificationError:
            assert not taken
        else:
            assert taken
    assert isinstance(late := _read(by_shared(BODY, at=NOW - timedelta(hours=1))), Refusal)
    assert "clock skew" in late.detail


@pytest.mark.parametrize(
    "bad", ["whsec_", "whsec_short", "x" * 40, "whpk_AAAA", "whsec_" + base64.b64encode(b"k" * 65).decode()]
)
def test_a_secret_of_another_form_is_refused_before_it_is_stored(bad: str) -> None:
    assert prohibits(Secret(bad))
    assert prohibits(Secret(KEY)) is None
    assert prohibits(Secret(PUBLIC)) is None


def test_workflows_listen_by_the_name_the_operator_gave_and_never_by_anothers() -> None:
    reading = SOURCE.of({"sender": "billing"}).read(lower(by_shared(BODY)), BODY, [Secret(KEY)], NOW)
    assert isinstance(reading, Received)
    assert reading.signed(source="standard", connection="c", body=BODY).source == "billing"
    for wrong in ({"sender": "github"}, {"sender": "aswhom"}, {"sender": "A B"}, {"sendr": "billing"}):
        with pytest.raises(Misconfigured):
            SOURCE.of(wrong)


@pytest.mark.parametrize("body", [b"[]", b"\xff", b'{"type":7}', b'{"type":"a b"}', b'{"type":""}'])
def test_a_signed_body_that_names_no_event_is_malformed(body: bytes) -> None:
    assert fault_of(_read(by_private(body), body, PUBLIC)) is Fault.MALFORMED
