"""Security Event Tokens, read without a server: what is believed, what it means, and how the rest is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey

from identity.oauth.token_digests import double
from identity.quoting import kept
from identity.transmitters import Transmitter
from pipeline.model import SecurityEvent
from pipeline.signal import Asks, Holders, Nobody, People, Signal
from tests.webhooks import published
from tests.webhooks.events import CAEP, ISSUER, KEY, OTHER, RISC, SESSION_REVOKED, TRANSMITTER, claims, public, sign
from tests.webhooks.parts import NOW
from webhooks.security_event import Code, Refused, read, unverified

TOKEN = sign(claims())
GOOGLE = "https://accounts.google.com/"


def take(token: bytes, **more: Any) -> SecurityEvent:
    by = more.get("by", TRANSMITTER)
    return read(unverified(token, by), public(more.get("key", KEY)), by, now=more.get("now", NOW))


def refusal(token: bytes, *, key: Any = None, by: Transmitter = TRANSMITTER) -> Code:
    try:
        taken = read(unverified(token, by), key or public(KEY), by, now=NOW)
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
    assert not signal.of_account


@pytest.mark.parametrize("path", published.security_events(), ids=lambda path: path.name)
def test_every_published_event_is_taken_and_asks_what_its_type_asks(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    audience = document["aud"] if isinstance(document["aud"], str) else document["aud"][-1]
    transmitter = replace(TRANSMITTER, issuer=document["iss"], audience=audience)
    now = datetime.fromtimestamp(document["iat"], UTC)
    event = take(sign(document), by=transmitter, now=now)
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
        {"format": "aliases", "identifiers": [{"format": "email", "email": "a@b"}]},
    ):
        assert isinstance(whom(nobody), Nobody)
    assert "never taken for a person" in whom({"format": "email", "email": "a@b"}).why


def test_a_subject_by_several_names_is_whom_those_mean_that_are_known() -> None:
    """RFC 9493 §3.2.8: they are names of one subject, of which an address is often the first."""
    address, elsewhere = {"format": "email", "email": "ada@acme.example"}, {"format": "iss_sub", "iss": "x", "sub": "y"}
    named = {"format": "iss_sub", "iss": ISSUER, "sub": "u-1"}
    aliases = {"format": "aliases", "identifiers": [address, elsewhere, named]}
    assert whom(aliases) == whom({"format": "complex", "user": aliases}) == People(ids=frozenset({"u-1"}))
    both = {"format": "aliases", "identifiers": [named, {"format": "opaque", "id": "u-2"}]}
    assert whom(both) == People(ids=frozenset({"u-1", "u-2"}))


def test_a_transmitter_may_tell_of_one_other_issuers_people() -> None:
    hub = replace(TRANSMITTER, subject_issuer="https://people.example/")

    def means(issuer: str) -> Any:
        event = take(sign(claims(sub_id={"format": "iss_sub", "iss": issuer, "sub": "u-1"})), by=hub)
        return event.signals[0].whom[0]

    assert means("https://people.example/") == People(ids=frozenset({"u-1"}))
    assert isinstance(means(ISSUER), Nobody)  # the same `sub` there may be somebody else's


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
    assert disabled.of_account


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
        taken = take(bytes(flipped))
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


def test_a_header_parameter_that_nobody_knows_is_ignored_and_one_that_must_be_known_is_not() -> None:
    """RFC 7515 §4 and §4.1.11; such a refusal is no fault of a key."""
    private = {"pi.atm": "x", "nonce": "n", "x5c": ["A" * 4000]}
    assert take(head({"alg": "RS256", "typ": "secevent+jwt", "kid": "k1", **private})).jti == "j-1"
    for crit in (["pi.atm"], [], ["alg"], 1):
        token = head({"alg": "RS256", "typ": "secevent+jwt", "kid": "k1", "pi.atm": "x", "crit": crit})
        assert refusal(token) is Code.INVALID_REQUEST
    assert refusal(head({"alg": "RS256", "typ": "secevent+jwt", "kid": "k1", "b64": False})) is Code.INVALID_REQUEST
    with pytest.raises(Refused, match="crit"):
        take(head({"alg": "RS256", "typ": "secevent+jwt", "kid": "k1", "crit": []}))


def head(header: Mapping[str, Any]) -> bytes:
    """A token signed by KEY whose header the library would not write."""
    parts = (json.dumps(part).encode() for part in (header, claims()))
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    private = cast("rsa.RSAPrivateKey", KEY.private_key)
    signature = private.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")


def test_ed25519_is_taken_by_both_of_its_names_whichever_its_key_says() -> None:
    """RFC 9864 gives `EdDSA` the name `Ed25519`; an issuer that moves to it says one here and the other there."""
    for said in ("EdDSA", "Ed25519", None):
        named: Any = {"kid": "k1"} | ({"alg": said} if said else {})
        key = OKPKey.generate_key("Ed25519", named)
        private = OKPKey.import_key({name: value for name, value in key.as_dict(private=True).items() if name != "alg"})
        token = sign(claims(), private, alg="Ed25519")
        assert take(token, key=key).jti == "j-1"
        with pytest.warns(SecurityWarning):  # the library's, of signing by the former name
            former = sign(claims(), private, alg="EdDSA")
        assert take(former, key=key).jti == "j-1"
    curve = ECKey.generate_key("P-384", {"kid": "k1"})
    assert take(sign(claims(), curve, alg="ES384"), key=curve).jti == "j-1"
    assert refusal(sign(claims(), curve, alg="ES384"), key=public(ECKey.generate_key("P-256"))) is Code.INVALID_KEY


def test_an_untyped_token_is_taken_of_those_transmitters_alone_and_never_one_that_may_be_an_id_token() -> None:
    plain = replace(TRANSMITTER, plain_jwt=True)
    for kind in ("JWT", None, "secevent+jwt", "application/secevent+jwt"):
        assert take(sign(claims(), typ=kind), by=plain).jti == "j-1"
    later = claims()["iat"] + 600
    assert take(sign(claims(exp=later))).jti == "j-1"
    for changed in ({"exp": later}, {"nonce": "n"}, {"events": None}):
        assert refusal(sign(claims(**changed), typ="JWT"), by=plain) is Code.INVALID_REQUEST
    for kind in ("at+jwt", "logout+jwt", "cap+jwt", ""):
        assert refusal(sign(claims(), typ=kind), by=plain) is Code.INVALID_REQUEST


def test_another_key_an_unknown_one_and_one_of_another_kind_are_refused() -> None:
    assert refusal(sign(claims(), OTHER, kid="k1")) is Code.AUTHENTICATION_FAILED
    with pytest.raises(Refused) as unknown:
        read(unverified(sign(claims(), OTHER), TRANSMITTER), None, TRANSMITTER, now=NOW)
    assert unknown.value.code is Code.INVALID_KEY
    curve = ECKey.generate_key("P-256", {"kid": "k1"})
    assert refusal(sign(claims()), key=public(curve)) is Code.INVALID_KEY
    assert take(sign(claims(), curve, alg="ES256"), key=curve).jti == "j-1"


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
        ({"sub_id": {"format": "aliases"}}, Code.INVALID_REQUEST),
        ({"sub_id": {"format": "aliases", "identifiers": []}}, Code.INVALID_REQUEST),
        ({"sub_id": {"format": "aliases", "identifiers": ["u-1"]}}, Code.INVALID_REQUEST),
        ({"sub_id": {"format": "aliases", "identifiers": [{"format": "aliases"}]}}, Code.INVALID_REQUEST),
        ({"exp": 1}, Code.INVALID_REQUEST),
        ({"exp": "later"}, Code.INVALID_REQUEST),
    ],
)
def test_claims_that_are_not_for_us_are_refused_by_their_code(changed: dict[str, Any], code: Code) -> None:
    assert refusal(sign(claims(**changed))) is code


def test_an_audience_may_be_one_of_several() -> None:
    assert take(sign(claims(aud=["https://another.example", TRANSMITTER.audience]))).jti == "j-1"


def test_a_transmitter_may_have_several_audiences() -> None:
    several = replace(TRANSMITTER, other_audiences=("mobile", "web"))
    ours: list[Any] = [TRANSMITTER.audience, "web", ["x", "mobile"]]
    for audience in ours:
        assert take(sign(claims(aud=audience)), by=several).jti == "j-1"
    others: list[Any] = ["x", [["web"], {"web": 1}], None]
    for audience in others:
        assert refusal(sign(claims(aud=audience)), by=several) is Code.INVALID_AUDIENCE
    assert refusal(sign(claims(aud="web"))) is Code.INVALID_AUDIENCE


def test_claims_with_a_key_twice_are_refused() -> None:
    twice = json.dumps(claims())[:-1] + ',"jti":"j-2"}'
    assert refusal(sign(twice.encode())) is Code.INVALID_REQUEST
