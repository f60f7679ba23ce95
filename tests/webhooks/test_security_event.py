"""Security Event Tokens, read without a server: what is believed, what it means, and how the rest is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey

from identity.quoting import kept
from identity.token_digests import double
from pipeline.model import SecurityEvent
from pipeline.revocation.signal import Asks, Holders, Nobody, People, Signal
from tests.webhooks import published
from tests.webhooks.events import CAEP, ISSUER, KEY, OTHER, RISC, SESSION_REVOKED, TRANSMITTER, claims, public, sign
from tests.webhooks.parts import NOW
from webhooks.security_event import Code, Refused, key_id, read

TOKEN = sign(claims())
GOOGLE = "https://accounts.google.com/"


def take(token: bytes, **more: Any) -> SecurityEvent:
    assert key_id(token) == "k1"
    return read(token, public(KEY), TRANSMITTER, now=more.get("now", NOW))


def refusal(token: bytes, *, key: Any = None) -> Code:
    try:
        key_id(token)
        taken = read(token, key or public(KEY), TRANSMITTER, now=NOW)
    except Refused as error:
        said = error
    else:
        pytest.fail(f"taken: {taken}")
    assert "u-1" not in said.description
    return said.code


def meaning(document: Mapping[str, Any]) -> Signal | None:
    event = take(sign(document))
    assert len(event.signals) + bool(event.note) == 1
    return event.signals[0] if event.signals else None


def whom(subject: Mapping[str, Any]) -> Any:
    signal = meaning(claims(sub_id=subject))
    assert signal is not None
    return signal.whom[0]


def test_a_signed_event_is_read() -> None:
    event = take(TOKEN)
    assert (event.transmitter, event.jti, event.events, event.token) == ("idp", "j-1", (SESSION_REVOKED,), TOKEN)
    (signal,) = event.signals
    assert (signal.source, signal.asks, signal.whom) == (
        "caep.session-revoked",
        Asks.REVOKE,
        (People(ids=frozenset({"u-1"})),),
    )
    assert signal.happened_at == datetime.fromtimestamp(1772366400, UTC)


@pytest.mark.parametrize("path", published.security_events(), ids=lambda path: path.name)
def test_every_published_event_is_taken_and_asks_what_its_type_asks(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    audience = document["aud"] if isinstance(document["aud"], str) else document["aud"][-1]
    transmitter = replace(TRANSMITTER, issuer=document["iss"], audience=audience)
    now = datetime.fromtimestamp(document["iat"], UTC)
    event = read(sign(document), public(KEY), transmitter, now=now)
    assert event.events == tuple(document["events"])
    asked = {signal.asks for signal in event.signals}
    name = path.name.removesuffix(".json")[:-2]
    if name in ("caep.session-revoked", "risc.account-disabled", "risc.credential-compromise"):
        assert asked == {Asks.REVOKE}
    elif name == "caep.token-claims-change":
        assert asked == {Asks.RENEW}
    else:
        assert asked == set()
        assert event.note
    for signal in event.signals:
        if document["sub_id"]["format"] not in ("iss_sub", "opaque", "complex"):
            assert isinstance(signal.whom[0], Nobody)


@pytest.mark.parametrize(
    ("kind", "event", "asks"),
    [
        (CAEP + "session-revoked", {}, Asks.REVOKE),
        (CAEP + "credential-change", {"change_type": "revoke"}, Asks.REVOKE),
        (CAEP + "credential-change", {"change_type": "delete"}, Asks.REVOKE),
        (CAEP + "credential-change", {"change_type": "create"}, None),
        (CAEP + "credential-change", {"change_type": "update"}, None),
        (CAEP + "token-claims-change", {"claims": {"role": "guest"}}, Asks.RENEW),
        (RISC + "account-disabled", {"reason": "hijacking"}, Asks.REVOKE),
        (RISC + "account-purged", {}, Asks.REVOKE),
        (RISC + "credential-compromise", {"credential_type": "password"}, Asks.REVOKE),
        (RISC + "sessions-revoked", {}, Asks.REVOKE),
        (RISC + "account-enabled", {}, None),
        (RISC + "no-such-event", {}, None),
        ("https://schemas.openid.net/secevent/ssf/event-type/verification", {"state": "x"}, None),
        ("https://schemas.openid.net/secevent/ssf/event-type/stream-updated", {"status": "paused"}, None),
        ("https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked", {}, Asks.REVOKE),
    ],
)
def test_what_each_type_asks(kind: str, event: dict[str, Any], asks: Asks | None) -> None:
    signal = meaning(claims(event, kind=kind))
    assert (signal and signal.asks) == asks


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (RISC + "no-such-event\0", {}),
        (RISC + "no-such-event\ud800", {}),
        ("https://schemas.openid.net/secevent/ssf/event-type/stream-updated", {"status": "paused\0"}),
    ],
)
def test_what_is_noted_of_an_event_can_be_stored(kind: str, event: dict[str, Any]) -> None:
    note = take(sign(claims(event, kind=kind))).note
    assert note == kept(note, longest=1000)
    assert "\ufffd" in note


def test_a_subject_is_known_by_its_id_at_the_issuer_and_never_by_an_address() -> None:
    one = People(ids=frozenset({"u-1"}))
    assert whom({"format": "iss_sub", "iss": ISSUER, "sub": "u-1"}) == one
    assert whom({"format": "opaque", "id": "u-1"}) == one
    user = {"format": "iss_sub", "iss": ISSUER, "sub": "u-1"}
    device = {"format": "opaque", "id": "phone"}
    assert whom({"format": "complex", "user": user, "device": device}) == one
    for nobody in (
        {"format": "email", "email": "u-1@example.com"},
        {"format": "phone_number", "phone_number": "+1"},
        {"format": "iss_sub", "iss": "https://other.example/", "sub": "u-1"},
        {"format": "complex", "device": device},
        {"format": "complex", "user": {"format": "email", "email": "a@b"}},
        {"format": "jwt_id", "iss": ISSUER, "jti": "x"},
        {"format": "unheard-of"},
    ):
        assert isinstance(whom(nobody), Nobody)
    assert "never taken for a person" in whom({"format": "email", "email": "a@b"}).why


def test_google_names_users_and_refresh_tokens_in_its_own_way() -> None:
    kind = "https://schemas.openid.net/secevent/oauth/event-type/token-revoked"
    subject = {"subject_type": "oauth_token", "token_type": "refresh_token"}
    named = {"token_identifier_alg": "hash_base64_sha512_sha512", "token": "aGFzaA=="}
    by_hash = meaning(claims({"subject": subject | named}, kind=kind, sub_id=None))
    assert by_hash is not None
    assert by_hash.whom == (Holders(digest="aGFzaA=="),)
    by_prefix = meaning(
        claims(
            {"subject": subject | {"token_identifier_alg": "prefix", "token": "1//0gabcdefghijk"}},
            kind=kind,
            sub_id=None,
        )
    )
    assert by_prefix is not None
    assert by_prefix.whom == (Holders(digest=double("1//0gabcdefghijk"), of_prefix=True),)
    for odd in ({"token_type": "access_token"}, {"token_identifier_alg": "plain", "token": "x"}):
        unknown = meaning(claims({"subject": subject | odd}, kind=kind, sub_id=None))
        assert unknown is not None
        assert isinstance(unknown.whom[0], Nobody)
    person = {"subject_type": "iss-sub", "iss": ISSUER, "sub": "7375626A656374"}
    disabled = meaning(claims({"subject": person, "reason": "hijacking"}, kind=RISC + "account-disabled", sub_id=None))
    assert disabled is not None
    assert disabled.whom == (People(ids=frozenset({"7375626A656374"})),)


def test_the_events_own_time_counts_before_the_tokens() -> None:
    cases: tuple[tuple[dict[str, Any], dict[str, Any], int], ...] = (
        ({"event_timestamp": 1772366000}, {"toe": 1772366100}, 1772366000),
        ({}, {"toe": 1772366100}, 1772366100),
        ({"event_timestamp": True}, {}, 1772366400),
    )
    for event, more, expected in cases:
        signal = meaning(claims(event, **more))
        assert signal is not None
        assert signal.happened_at == datetime.fromtimestamp(expected, UTC)


@given(place=st.integers(0, len(TOKEN) * 8 - 1))
def test_any_flipped_bit_is_refused_or_is_no_part_of_what_was_signed(place: int) -> None:
    flipped = bytearray(TOKEN)
    flipped[place // 8] ^= 1 << place % 8
    try:
        key_id(bytes(flipped))
        taken = read(bytes(flipped), public(KEY), TRANSMITTER, now=NOW)
    except Refused:
        return
    # The last Base64 character has bits that mean nothing; the signature over header and claims is what it was.
    assert taken.signals == take(TOKEN).signals
    assert bytes(flipped).rsplit(b".", 1)[0] == TOKEN.rsplit(b".", 1)[0]


@given(token=st.binary(max_size=200))
def test_no_bytes_are_a_crash(token: bytes) -> None:
    assert refusal(token) is Code.INVALID_REQUEST


@pytest.mark.parametrize("header", [b'["alg"]', b'["alg","b64"]', b'"alg"', b"7", b'{"alg":7}'])
def test_a_header_that_is_no_header_is_no_event(header: bytes) -> None:
    head = base64.urlsafe_b64encode(header).rstrip(b"=")
    assert refusal(head + b"." + TOKEN.split(b".", 1)[1]) is Code.INVALID_REQUEST


def test_an_id_token_and_an_unsigned_one_are_no_events() -> None:
    for kind in ("JWT", "at+jwt", None):
        assert refusal(sign(claims(), typ=kind)) is Code.INVALID_REQUEST
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"secevent+jwt","kid":"k1"}').rstrip(b"=")
    assert refusal(header + b"." + TOKEN.split(b".")[1] + b".") is not Code.INVALID_AUDIENCE
    secret = OctKey.import_key(json.dumps(KEY.as_dict(private=False)), {"kid": "k1"})  # the public key as an HMAC's
    assert refusal(sign(claims(), secret, alg="HS256")) is Code.INVALID_KEY


def test_another_key_an_unknown_one_and_one_of_another_kind_are_refused() -> None:
    assert refusal(sign(claims(), OTHER, kid="k1")) is Code.AUTHENTICATION_FAILED
    with pytest.raises(Refused) as unknown:
        read(sign(claims(), OTHER), None, TRANSMITTER, now=NOW)
    assert unknown.value.code is Code.INVALID_KEY
    assert refusal(sign(claims(), kid=None)) is Code.INVALID_KEY
    curve = ECKey.generate_key("P-256", {"kid": "k1"})
    assert refusal(sign(claims()), key=public(curve)) is Code.INVALID_KEY
    assert read(sign(claims(), curve, alg="ES256"), public(curve), TRANSMITTER, now=NOW).jti == "j-1"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"iss": "https://idp.example"}, Code.INVALID_ISSUER),
        ({"iss": None}, Code.INVALID_ISSUER),
        ({"aud": "https://another.example"}, Code.INVALID_AUDIENCE),
        ({"aud": []}, Code.INVALID_AUDIENCE),
        ({"aud": None}, Code.INVALID_AUDIENCE),
        ({"jti": None}, Code.INVALID_REQUEST),
        ({"jti": 7}, Code.INVALID_REQUEST),
        ({"jti": "x" * 201}, Code.INVALID_REQUEST),
        ({"iat": None}, Code.INVALID_REQUEST),
        ({"iat": 1772366400 + 301}, Code.INVALID_REQUEST),
        ({"events": {}}, Code.INVALID_REQUEST),
        ({"events": {SESSION_REVOKED: 1}}, Code.INVALID_REQUEST),
        ({"events": {CAEP + "credential-change": {}}}, Code.INVALID_REQUEST),
        ({"sub_id": None}, Code.INVALID_REQUEST),
        ({"sub_id": {"format": "iss_sub", "iss": ISSUER}}, Code.INVALID_REQUEST),
        ({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "ada\0"}}, Code.INVALID_REQUEST),
        ({"sub_id": {"format": "opaque", "id": "\ud800"}}, Code.INVALID_REQUEST),
    ],
)
def test_claims_that_are_not_for_us_are_refused_by_their_code(changed: dict[str, Any], code: Code) -> None:
    assert refusal(sign(claims(**changed))) is code


def test_an_audience_may_be_one_of_several() -> None:
    assert take(sign(claims(aud=["https://another.example", TRANSMITTER.audience]))).jti == "j-1"


def test_claims_with_a_key_twice_are_refused() -> None:
    twice = json.dumps(claims())[:-1] + ',"jti":"j-2"}'
    assert refusal(sign(twice.encode())) is Code.INVALID_REQUEST
