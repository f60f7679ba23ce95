"""The verifier alone, as an upstream has it: keys, a token, a request, and a reason for each refusal."""

from __future__ import annotations

import ast
import json
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.client import BadStatusLine, IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey
from joserfc.jws import JWSRegistry

from identity.capability import verifier
from identity.capability.issuer import claims_of
from identity.capability.spending import Unspendable
from identity.capability.verifier import (
    Capability,
    Limit,
    PublishedKeys,
    Reason,
    Refused,
    Verifier,
    read_key_set,
    request_hash,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PAIRS: dict[str, Any] = {"Ed25519": OKPKey.generate_key("Ed25519"), "ES256": ECKey.generate_key("P-256")}
STRANGER = OKPKey.generate_key("Ed25519")
KEY_SET = {"keys": [{**pair.as_dict(private=False), "kid": name} for name, pair in PAIRS.items()]}
PAY = request_hash("POST", "/v1/invoices/inv_7/pay?dry=0", b"{}")
AT = int(NOW.timestamp())
DETAIL: dict[str, Any] = {
    "type": "aswhom_action",
    "locations": ["https://invoices.example"],
    "actions": ["invoices.PayInvoice"],
    "identifier": "invoices/inv_7",
    "limit": {"amount": "1250.00", "currency": "EUR"},
}
CLAIMS: dict[str, Any] = {
    "iss": "https://aswhom.example",
    "aud": "https://invoices.example",
    "sub": "acme.ada",
    "act": {"sub": "bank", "act": {"sub": "payer"}},
    "iat": AT,
    "nbf": AT - 5,  # a verifier whose clock is behind ours may have no leeway
    "exp": AT + 120,
    "jti": "cap_1",
    "tenant": "acme",
    "job": "job_1",
    "step": "step_1",
    "request_sha256": PAY,
    "authorization_details": [DETAIL],
    "approved_by": ["acme.grace"],
}
ITS_OWN = {
    "iss": "issuer",
    "aud": "audience",
    "sub": "subject",
    "act": "actors",
    "iat": "issued_at",
    "nbf": "not_before",
    "exp": "expires_at",
    "jti": "id",
    "tenant": "tenant",
    "job": "job",
    "step": "step",
    "request_sha256": "request",
    "authorization_details": "details",
    "approved_by": "approved_by",
}


class Known:
    """The issuer's key set, fetched already."""

    def __init__(self, document: Mapping[str, Any] = KEY_SET) -> None:
        self._keys = read_key_set(document)

    def key(self, kid: str) -> verifier.Key | None:
        return self._keys.get(kid)


VERIFIER = Verifier(issuer="https://aswhom.example", audience="https://invoices.example", keys=Known())


def sign(claims: Mapping[str, Any] = CLAIMS, *, alg: str = "Ed25519", key: Any = None, **header: Any) -> str:
    head = {"alg": alg, "typ": "cap+jwt", "kid": alg, **header}
    registry = JWSRegistry(algorithms=[alg], strict_check_header=False)
    return jwt.encode(head, dict(claims), key or PAIRS[alg], registry=registry)


def resigned(more: Mapping[str, Any]) -> str:
    """A token that is well signed, with a header that the library would not write."""
    head = {"alg": "Ed25519", "typ": "cap+jwt", "kid": "Ed25519", **more}
    parts = (json.dumps(part).encode() for part in (head, CLAIMS))
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = urlsafe_b64encode(PAIRS["Ed25519"].private_key.sign(signed)).rstrip(b"=")
    return (signed + b"." + signature).decode()


def reason_of(token: str, *, now: datetime = NOW, request: str = PAY) -> str:
    with pytest.raises(Refused) as caught:
        VERIFIER.verify(token, now=now, request_sha256=request)
    return str(caught.value.reason)


@pytest.mark.parametrize("alg", PAIRS)
def test_a_token_of_either_algorithm_says_who_may_do_what(alg: str) -> None:
    assert VERIFIER.verify(sign(alg=alg), now=NOW, request_sha256=PAY) == Capability(
        id="cap_1",
        audience="https://invoices.example",
        tenant="acme",
        subject="acme.ada",
        actors=("bank", "payer"),
        job="job_1",
        step="step_1",
        action="invoices.PayInvoice",
        resource="invoices/inv_7",
        limit=Limit(amount=Decimal(1250), currency="EUR"),
        request_sha256=PAY,
        issued_at=NOW,
        expires_at=NOW + timedelta(seconds=120),
        approved_by=("acme.grace",),
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"iss": "https://else.example"}, "issuer"),
        ({"aud": "https://bank.example"}, "audience"),
        ({"aud": ["https://invoices.example", "https://bank.example"]}, "audience"),
        ({"act": {"sub": "payer", "act": "bank"}}, "actors"),
        ({"act": {"sub": "payer", "act": {}}}, "actors"),
        ({"iat": AT + 60}, "issued_at"),
        ({"nbf": AT + 60}, "early"),
        ({"exp": AT - 6, "iat": AT - 60}, "expired"),
        ({"exp": AT + 181}, "lifetime"),
        ({"request_sha256": "0" * 64}, "request"),
        ({"approved_by": "acme.grace"}, "approved_by"),
        ({"approved_by": ["acme.grace", 7]}, "approved_by"),
        ({"authorization_details": []}, "details"),
        ({"authorization_details": [DETAIL, DETAIL]}, "details"),
        ({"authorization_details": [{**DETAIL, "type": "payment_initiation"}]}, "details"),
        ({"authorization_details": [{**DETAIL, "locations": ["https://bank.example"]}]}, "details"),
        ({"authorization_details": [{**DETAIL, "actions": ["a", "b"]}]}, "details"),
        ({"authorization_details": [{**DETAIL, "actions": [7]}]}, "action"),
        ({"authorization_details": [{**DETAIL, "identifier": None}]}, "resource"),
        ({"authorization_details": [{**DETAIL, "limit": 7}]}, "amount"),
        ({"authorization_details": [{**DETAIL, "limit": {"amount": "-1", "currency": "EUR"}}]}, "amount"),
        ({"authorization_details": [{**DETAIL, "limit": {"amount": 1250, "currency": "EUR"}}]}, "amount"),
        ({"authorization_details": [{**DETAIL, "limit": {"amount": "1250.00"}}]}, "currency"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else value,
)
def test_each_claim_that_is_not_as_it_should_be_has_its_own_refusal(changed: dict[str, Any], reason: str) -> None:
    assert reason_of(sign({**CLAIMS, **changed})) == reason


@pytest.mark.parametrize("name", ITS_OWN)
def test_a_claim_of_another_type_is_refused_for_its_own_reason(name: str) -> None:
    wrong: Any
    for wrong in (None, "", {}, True, 7.5):
        assert reason_of(sign({**CLAIMS, name: wrong})) == ITS_OWN[name], wrong


@pytest.mark.parametrize("name", sorted(CLAIMS.keys() - {"approved_by"}))
def test_no_claim_may_be_missing(name: str) -> None:
    assert reason_of(sign({k: v for k, v in CLAIMS.items() if k != name})) == ITS_OWN[name]


def test_every_claim_that_is_issued_has_a_reason_that_no_other_has() -> None:
    issued = claims_of(VERIFIER.verify(sign(), now=NOW, request_sha256=PAY), issuer=CLAIMS["iss"])
    assert issued == CLAIMS
    assert ITS_OWN.keys() == issued.keys()
    assert len({*ITS_OWN.values()}) == len(issued)
    assert {*ITS_OWN.values()} <= {*Reason}
    assert not {*Reason} & {*Unspendable}, "a service is told either by one word"


def test_a_claim_that_was_changed_after_signing_is_refused_by_its_signature() -> None:
    head, payload, signature = sign().split(".")
    for name in CLAIMS:
        claims = json.loads(urlsafe_b64decode(payload + "=="))
        claims[name] = "changed"
        other = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        assert reason_of(f"{head}.{other}.{signature}") == "signature", name


def test_another_kind_of_token_and_other_keys_are_refused() -> None:
    assert reason_of(sign(typ="JWT")) == "type"
    assert reason_of(sign(kid="unknown")) == "key"
    assert reason_of(sign(kid="ES256")) == "key"
    assert reason_of(sign(key=STRANGER)) == "signature"
    assert reason_of("no.token") == "malformed"
    assert reason_of("") == "malformed"
    unknown: dict[str, Any] = {"pi.atm": "x"}
    assert VERIFIER.verify(sign(**unknown), now=NOW, request_sha256=PAY).id == "cap_1"  # RFC 7515 §4
    for crit in ([], ["alg"], ["pi.atm"]):
        assert reason_of(resigned({"crit": crit, "pi.atm": "x"})) == "malformed", crit
    rest = sign().partition(".")[2]
    for header in ('["alg"]', '["alg","b64"]', '"alg"', '{"alg":"Ed25519","typ":"cap+jwt","kid":"Ed25519","crit":1}'):
        head = urlsafe_b64encode(header.encode()).decode().rstrip("=")
        assert reason_of(f"{head}.{rest}") == "malformed", header


def test_neither_no_signature_nor_a_shared_secret_will_do() -> None:
    none = urlsafe_b64encode(json.dumps({"alg": "none", "typ": "cap+jwt", "kid": "Ed25519"}).encode()).decode()
    payload = urlsafe_b64encode(json.dumps(CLAIMS).encode()).decode().rstrip("=")
    assert reason_of(f"{none.rstrip('=')}.{payload}.") in ("algorithm", "malformed")
    public = json.dumps(KEY_SET["keys"][0])
    assert reason_of(sign(alg="HS256", key=OctKey.import_key(public))) == "algorithm"


def test_a_clock_may_differ_by_its_leeway_and_no_more() -> None:
    token = sign()
    VERIFIER.verify(token, now=NOW + timedelta(seconds=124), request_sha256=PAY)
    VERIFIER.verify(token, now=NOW - timedelta(seconds=5), request_sha256=PAY)
    assert reason_of(token, now=NOW + timedelta(seconds=125)) == "expired"
    assert reason_of(token, now=NOW - timedelta(seconds=6)) == "issued_at"
    assert reason_of(token, now=NOW - timedelta(seconds=11)) == "early"


def test_another_request_than_the_one_it_is_for_is_refused() -> None:
    token = sign()
    for request in (
        ("PUT", "/v1/invoices/inv_7/pay?dry=0", b"{}"),
        ("POST", "/v1/invoices/inv_8/pay?dry=0", b"{}"),
        ("POST", "/v1/invoices/inv_7/pay?dry=1", b"{}"),
        ("POST", "/v1/invoices/inv_7/pay?dry=0", b"{ }"),
    ):
        assert reason_of(token, request=request_hash(*request)) == "request", request


def test_a_capability_allows_what_it_names_and_nothing_else() -> None:
    capability = VERIFIER.verify(sign(), now=NOW, request_sha256=PAY)
    asked: dict[str, Any] = {
        "tenant": "acme",
        "action": "invoices.PayInvoice",
        "resource": "invoices/inv_7",
        "amount": Decimal(1250),
        "currency": "EUR",
    }
    assert capability.prohibits(**asked) is None
    assert capability.prohibits(**{**asked, "tenant": "globex"}) is Reason.TENANT
    assert capability.prohibits(**{**asked, "action": "invoices.Delete"}) is Reason.ACTION
    assert capability.prohibits(**{**asked, "resource": "invoices/inv_70"}) is Reason.RESOURCE
    assert capability.prohibits(**{**asked, "amount": Decimal("1250.01")}) is Reason.AMOUNT
    assert capability.prohibits(**{**asked, "amount": Decimal(-1)}) is Reason.AMOUNT
    assert capability.prohibits(**{**asked, "currency": "USD"}) is Reason.CURRENCY
    without = {**DETAIL}
    del without["limit"]
    unlimited = VERIFIER.verify(sign({**CLAIMS, "authorization_details": [without]}), now=NOW, request_sha256=PAY)
    assert unlimited.prohibits(**asked) is Reason.AMOUNT, "no limit is no amount, not any"


class Publisher:
    """An issuer's key set that changes, and can be away."""

    def __init__(self) -> None:
        self.document: Mapping[str, Any] = KEY_SET
        self.away: Exception | None = None
        self.fetched = 0
        self.clock = 1000.0

    def fetch(self, url: str) -> Mapping[str, Any]:
        self.fetched += 1
        if self.away is not None:
            raise self.away
        return self.document

    def keys(self) -> PublishedKeys:
        return PublishedKeys(url="https://aswhom.example/jwks", fetch=self.fetch, monotonic=lambda: self.clock)


def test_the_key_set_is_fetched_once_and_anew_for_an_unknown_kid_but_not_for_a_flood_of_them() -> None:
    publisher = Publisher()
    keys = publisher.keys()
    assert keys.key("Ed25519") is not None
    assert keys.key("ES256") is not None
    assert publisher.fetched == 1
    for number in range(100):
        assert keys.key(f"made-up-{number}") is None
    assert publisher.fetched == 1
    publisher.clock += 11
    publisher.document = {"keys": [{**STRANGER.as_dict(private=False), "kid": "next"}]}
    assert keys.key("next") is not None
    assert publisher.fetched == 2
    assert keys.key("Ed25519") is None


def test_a_key_that_is_published_no_more_is_soon_believed_no_more() -> None:
    publisher = Publisher()
    keys = publisher.keys()
    assert keys.key("Ed25519") is not None
    publisher.document = {"keys": []}
    publisher.clock += 301
    assert keys.key("Ed25519") is None


@pytest.mark.parametrize("away", [OSError("away"), IncompleteRead(b"{"), BadStatusLine("")])
def test_an_issuer_that_is_away_is_done_without_for_an_hour(away: Exception) -> None:
    publisher = Publisher()
    keys = publisher.keys()
    assert keys.key("Ed25519") is not None
    publisher.away = away
    publisher.clock += 3599
    assert keys.key("Ed25519") is not None
    publisher.clock += 2
    with pytest.raises(Refused):
        keys.key("Ed25519")


def test_private_unreadable_and_other_kinds_of_keys_verify_nothing() -> None:
    rows = [
        {**PAIRS["Ed25519"].as_dict(private=True), "kid": "private"},
        {"kty": "OKP", "crv": "Ed25519", "x": "!", "kid": "unreadable"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {"kty": "EC", "crv": "P-384", "x": "", "y": "", "kid": "other"},
        "no key",
    ]
    assert read_key_set({"keys": rows}) == {}
    assert read_key_set({"keys": None}) == {}


def test_the_verifier_is_one_file_that_needs_nothing_else_of_ours() -> None:
    tree = ast.parse(Path(verifier.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"joserfc"}
