"""Senders that are described by data, read without a server: the documented schemes of others are the peers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.errors import Misconfigured
from identity.secret import Secret
from tests.webhooks import published
from tests.webhooks.disfigured import TEXTS, assert_sound, bodies
from tests.webhooks.flips import flips
from tests.webhooks.parts import NOW, SECRET, fault_of, lower
from tests.webhooks.signing import PLAIN, STAMP, STRIPE, TIMED, plain, timed
from webhooks.sources.described import SOURCE
from webhooks.sources.document import Malformed
from webhooks.sources.reading import Fault, Reading, Received, Refusal

BODY = b'{"type":"order.created","id":"evt_1","account":{"id":7}}'
#: How senders that have a file of their own would be described: what they publish must fit.
KNOWN: dict[str, dict[str, str]] = {
    "github": {"signature_header": "X-Hub-Signature-256", "signature_prefix": "sha256="},
    "slack": {
        "signature_header": "X-Slack-Signature",
        "signature_prefix": "v0=",
        "timestamp_header": "X-Slack-Request-Timestamp",
        "signed": "v0:{timestamp}:{body}",
    },
    "linear": {"signature_header": "Linear-Signature"},
    "stripe": STRIPE,
}


def _read(config: Mapping[str, str], headers: dict[str, str], body: bytes = BODY, *secrets: str) -> Reading:
    return SOURCE.of(config).read(lower(headers), body, [Secret(one) for one in secrets or (SECRET,)], NOW)


@pytest.mark.parametrize("provider", KNOWN)
def test_every_documented_scheme_can_be_described(provider: str) -> None:
    vector = published.vectors()[provider]
    source = SOURCE.of(KNOWN[provider])
    then = datetime.fromtimestamp(vector.get("clock", 0), UTC)
    body, keys = vector["body"].encode(), [Secret(vector["secret"])]
    reading = source.read(lower(vector["headers"]), body, keys, then)
    # GitHub's and Slack's vectors are no JSON objects: that their signature is right is all there is to see.
    assert isinstance(reading, Received) or "The signature is right" in reading.detail  # type: ignore[union-attr]
    for flipped in flips(body):
        assert fault_of(source.read(lower(vector["headers"]), flipped, keys, then)) is Fault.SIGNATURE


def test_a_replay_of_a_scheme_with_a_time_is_refused() -> None:
    vector = published.vectors()["stripe"]
    reading = _read(KNOWN["stripe"], vector["headers"], vector["body"].encode(), vector["secret"])
    assert isinstance(reading, Refusal)
    assert "clock skew" in reading.detail


@given(body=st.binary(max_size=100), stamp=st.from_regex("[0-9]{1,15}", fullmatch=True))
def test_nothing_that_is_signed_is_a_crash(body: bytes, stamp: str) -> None:
    assert fault_of(_read(TIMED, timed(body, stamp=stamp), body)) in (Fault.STALE, Fault.MALFORMED, None)


@given(id=st.text("{}bodyimestap|", max_size=20))
def test_what_a_header_says_is_put_in_once_and_is_never_a_place(id: str) -> None:
    assert fault_of(_read(TIMED, timed(BODY, id=id))) is not Fault.SIGNATURE


def test_an_id_guards_against_replays_only_where_it_is_signed() -> None:
    in_the_message, in_a_header = _read(TIMED, timed(BODY)), _read(PLAIN, plain(BODY))
    in_the_body = _read({"signature_header": "X-Signature", "id_path": "id"}, plain(BODY))
    none = _read({"signature_header": "X-Signature"}, plain(BODY))
    for reading, id, by_body in (
        (in_the_message, "d-1", False),
        (in_a_header, "d-1", True),
        (in_the_body, "evt_1", False),
        (none, None, True),
    ):
        assert isinstance(reading, Received)
        assert reading.dedupe_by_body is by_body
        assert id is None or reading.delivery_id == id


def test_the_connection_says_where_event_and_installation_are() -> None:
    config = {**PLAIN, "event_header": "X-Event", "installation_path": "account.id", "sender": "shop"}
    reading = _read(config, {**plain(BODY), "X-Event": "order/created"})
    assert isinstance(reading, Received)
    assert (reading.event, reading.installation, reading.sender) == ("order/created", "7", "shop")
    assert fault_of(_read(config, plain(BODY))) is Fault.MALFORMED
    deep = _read(
        {"signature_header": "X-Signature", "event_path": "meta.kind"},
        plain(b'{"meta":{"kind":"a"}}'),
        b'{"meta":{"kind":"a"}}',
    )
    assert isinstance(deep, Received)
    assert deep.event == "a"


@pytest.mark.parametrize("named", ["\x00", "\ud800", "a b", "\u00e9", "x" * 201])
def test_an_installation_that_no_ledger_could_look_up_is_malformed_now_and_when_it_is_read_anew(named: str) -> None:
    config = {**PLAIN, "installation_path": "account.id"}
    body = json.dumps({"type": "a", "account": {"id": named}}).encode()
    assert fault_of(_read(config, plain(body), body)) is Fault.MALFORMED
    with pytest.raises(Malformed):
        SOURCE.of(config).reread("a", "1", body)


def test_an_installation_may_be_an_address_and_need_not_be_there() -> None:
    config = {**PLAIN, "installation_path": "account.id"}
    for account, installation in (({"id": "shop+eu@acme.example"}, "shop+eu@acme.example"), ({}, None), (None, None)):
        body = json.dumps({"type": "a", "account": account}).encode()
        reading = _read(config, plain(body), body)
        assert isinstance(reading, Received)
        assert reading.installation == installation


FORESEEN: list[dict[str, Any]] = [
    {"type": "order.created", "id": "evt_1", "account": {"id": "A7"}},
    {"id": 7, "account": {"id": 7}},
]


NAMED = TEXTS.map(lambda text: json.dumps({"type": "a", "id": text, "account": {"id": text}}))
STAMPS = st.integers(-400, 400).map(lambda away: str(int(STAMP) + away)) | TEXTS


@given(body=bodies(*FORESEEN) | NAMED, id=TEXTS, event=TEXTS, stamp=STAMPS)
def test_whatever_is_signed_is_a_delivery_with_its_id_or_refused(body: str, id: str, event: str, stamp: str) -> None:
    signed, where = body.encode(), {"installation_path": "account.id"}
    for config, headers in (
        ({**TIMED, **where}, timed(signed, id=id, stamp=stamp)),
        ({**PLAIN, **where, "event_header": "X-Event"}, {**plain(signed, id=id), "X-Event": event}),
        ({"signature_header": "X-Signature", "id_path": "id", **where}, plain(signed)),
        ({"signature_header": "X-Signature", **where}, plain(signed)),
    ):
        assert_sound(_read(config, headers, signed))


def test_a_secret_may_be_given_in_base64() -> None:
    config = {**PLAIN, "secret_encoding": "base64"}
    key = base64.b64encode(SECRET.encode()).decode()
    assert isinstance(_read(config, plain(BODY), BODY, key), Received)
    assert SOURCE.of(config).prohibits(Secret("not base64!"))
    assert fault_of(_read(config, plain(BODY), BODY, "not base64!")) is Fault.SIGNATURE


def test_the_tolerance_is_the_connections() -> None:
    stamp = str(int((NOW - timedelta(seconds=100)).timestamp()))
    assert isinstance(_read(TIMED, timed(BODY, stamp=stamp)), Received)
    assert fault_of(_read({**TIMED, "tolerance": "60"}, timed(BODY, stamp=stamp))) is Fault.STALE
    in_ms = {**TIMED, "timestamp_unit": "ms"}
    assert isinstance(_read(in_ms, timed(BODY, stamp=f"{STAMP}000")), Received)
    assert fault_of(_read(in_ms, timed(BODY))) is Fault.STALE


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"signature_header": "a b"},
        {"signature_header": "X", "algorithm": "sha1"},
        {"signature_header": "X", "signed": "{timestamp}"},
        {"signature_header": "X", "signed": "{timestamp}.{body}"},
        {"signature_header": "X", "timestamp_header": "T"},
        {"signature_header": "X", "signed": "{body}{body}"},
        {"signature_header": "X", "signed": "{body}{secret}"},
        {"signature_header": "X", "signed": "{body}{"},
        {"signature_header": "X", "signed": "{id}{body}"},
        {"signature_header": "X", "sender": "slack"},
        {"signature_header": "X", "sender": "aswhom"},
        {"signature_header": "X", "tolerance": "86400"},
        {"signature_header": "X", "signature_heather": "Y"},
    ],
)
def test_a_description_that_would_guard_nothing_is_refused(config: dict[str, str]) -> None:
    with pytest.raises(Misconfigured):
        SOURCE.of(config)


def test_every_fault_of_a_description_is_named() -> None:
    with pytest.raises(Misconfigured) as caught:
        SOURCE.of({"algorithm": "md5", "tolerance": "no"})
    for name in ("signature_header", "algorithm", "tolerance"):
        assert name in str(caught.value)


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of)
    )
)
def test_no_document_is_a_crash(document: Any) -> None:
    body = json.dumps({"type": document, "id": document, "account": document}).encode()
    config = {"signature_header": "X-Signature", "id_path": "id", "installation_path": "account.id"}
    assert fault_of(_read(config, plain(body), body)) in (Fault.MALFORMED, None)
