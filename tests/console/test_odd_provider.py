"""Signing in at a provider that lies, mixes things up, or hangs."""

from __future__ import annotations

import json
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from hashlib import sha512
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from joserfc.jwk import OctKey, OKPKey, RSAKey

from identity.console.sign_in import AT_ONCE, SignIn, SignInSettings
from identity.errors import PolicyDenied, Unavailable
from identity.http.addresses import AddressPolicy
from identity.http.client import Client, HttpRequest, NotSent
from identity.secret import Secret
from tests.console.console_app import BASE
from tests.console.provider import CLIENT_ID, CLIENT_SECRET, Provider, provider
from tests.waiting import PATIENCE

CALLBACK = f"{BASE}/console/callback"
POLICY = AddressPolicy(allow_hosts=frozenset({"127.0.0.1"}))


@pytest.fixture(scope="module")
def http() -> Iterator[Client]:
    with Client(policy=POLICY, pool_size=2) as client:
        yield client


@pytest.fixture(scope="module")
def liar() -> Iterator[Provider]:
    with provider() as running:
        yield running


def headed(liar: Provider, claims: dict[str, Any], **header: Any) -> str:
    """An ID token whose header the library would not write."""
    head = {"alg": "RS256", "kid": "k1"} | header
    parts = (json.dumps(part).encode() for part in (head, claims))
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    private = cast("rsa.RSAPrivateKey", liar.key.private_key)
    signature = private.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return (signed + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode()


Forge = Callable[[Provider, dict[str, Any]], str]
FORGED: dict[str, Forge] = {
    "another issuer": lambda p, c: p.signed({**c, "iss": "https://evil.example"}),
    "another audience": lambda p, c: p.signed({**c, "aud": "somebody-else"}),
    "another party's": lambda p, c: p.signed({**c, "aud": [CLIENT_ID, "x"], "azp": "x"}),
    "expired": lambda p, c: p.signed({**c, "exp": c["iat"] - 3600}),
    "another sign-in's": lambda p, c: p.signed({**c, "nonce": "x"}),
    "without a nonce": lambda p, c: p.signed({name: value for name, value in c.items() if name != "nonce"}),
    "without a subject": lambda p, c: p.signed({name: value for name, value in c.items() if name != "sub"}),
    "signed by another key": lambda p, c: p.signed(c, key=RSAKey.generate_key(2048)),
    "signed by a key nobody has": lambda p, c: p.signed(c, kid="k9"),
    "signed with our secret": lambda p, c: p.signed(c, key=OctKey.import_key(CLIENT_SECRET), alg="HS256"),
    "not signed": lambda p, c: p.signed(c).rpartition(".")[0] + ".",
    "no token": lambda p, c: "x",
    "with a crit that names nothing": lambda p, c: headed(p, c, crit=[]),
    "with a header that is no object": lambda p, c: f"WyJhbGciXQ.{p.signed(c).partition('.')[2]}",
}


def _begun(
    liar: Provider, http: Client, now: datetime, *, monotonic: Callable[[], float] = time.monotonic
) -> tuple[SignIn, Secret, dict[str, str]]:
    """A sign-in that was begun, the browser's secret, and the answer that would be right."""
    settings = SignInSettings(
        issuer=liar.issuer, client_id=CLIENT_ID, client_secret=Secret(CLIENT_SECRET), redirect_uri=CALLBACK
    )
    sign_in, mine = SignIn(settings, http, monotonic=monotonic), Secret(secrets.token_urlsafe(32))
    asked = {name: value[0] for name, value in parse_qs(urlsplit(sign_in.begin(mine)).query).items()}
    iat = int(now.timestamp())
    liar.right = {"iss": liar.issuer, "sub": "ada", "aud": CLIENT_ID, "exp": iat + 60, "iat": iat}
    liar.right["nonce"] = asked["nonce"]
    liar.userinfo, liar.token = {"sub": "ada", "groups": ["owner"]}, liar.signed
    return sign_in, mine, {"state": asked["state"], "code": "c"}


def test_what_the_provider_says_elsewhere_counts_for_its_subject_alone(liar: Provider, http: Client) -> None:
    now = datetime.now(UTC)
    sign_in, mine, answer = _begun(liar, http, now)
    assert sign_in.finish(mine, answer, jti="j", now=now)["groups"] == ["owner"]
    liar.userinfo = {"sub": "eve", "groups": ["owner"]}
    assert "groups" not in sign_in.finish(mine, answer, jti="j", now=now)


def test_an_address_is_verified_where_it_stands(liar: Provider, http: Client) -> None:
    """One of the token and userinfo must not vouch for the other's."""
    now = datetime.now(UTC)
    sign_in, mine, answer = _begun(liar, http, now)
    verified = {"email": "ada@x.test", "email_verified": True}

    def said(token: dict[str, Any], elsewhere: dict[str, Any]) -> tuple[object, object]:
        liar.token = lambda claims: liar.signed({**claims, **token})
        liar.userinfo = {"sub": "ada", **elsewhere}
        claims = sign_in.finish(mine, answer, jti="j", now=now)
        return claims.get("email"), claims.get("email_verified")

    assert said({"email": "owner@x.test"}, verified) == ("ada@x.test", True)
    assert said({"email": "owner@x.test"}, {"email_verified": True}) == ("owner@x.test", None)
    assert said({"email_verified": True}, {"email": "owner@x.test"}) == ("owner@x.test", None)
    assert said({"email": "owner@x.test", "email_verified": False}, verified) == ("owner@x.test", False)
    assert said(verified, {}) == said({}, verified) == ("ada@x.test", True)


@pytest.mark.parametrize(
    "wrong", [{"state": "x"}, {"state": "é"}, {"error": "access_denied"}, {"iss": "https://evil.example"}]
)
def test_an_answer_that_is_not_of_this_sign_in_is_not_believed(
    liar: Provider, http: Client, wrong: dict[str, str]
) -> None:
    now = datetime.now(UTC)
    sign_in, mine, answer = _begun(liar, http, now)
    with pytest.raises(PolicyDenied):
        sign_in.finish(mine, {**answer, **wrong}, jti="j", now=now)


def test_who_says_that_it_sends_its_name_is_not_believed_without_it(liar: Provider, http: Client) -> None:
    """RFC 9207 §2.4, and before anything else that an answer says."""
    now = datetime.now(UTC)
    liar.says = {"authorization_response_iss_parameter_supported": True}
    try:
        sign_in, mine, answer = _begun(liar, http, now)
        for nameless in (answer, {**answer, "error": "access_denied"}):
            with pytest.raises(PolicyDenied, match="whose it is"):
                sign_in.finish(mine, nameless, jti="j", now=now)
        assert sign_in.finish(mine, {**answer, "iss": liar.issuer}, jti="j", now=now)["sub"] == "ada"
    finally:
        liar.says = {}


def test_what_a_provider_says_of_itself_is_asked_anew_each_hour_and_kept_while_it_is_away(
    liar: Provider, http: Client
) -> None:
    now, passed = datetime.now(UTC), [0.0]
    sign_in, mine, answer = _begun(liar, http, now, monotonic=lambda: passed[0])
    liar.moved, liar.says = RSAKey.generate_key(2048, {"kid": "k1"}), {"jwks_uri": f"{liar.issuer}/moved-jwks"}
    try:
        assert sign_in.finish(mine, answer, jti="j", now=now)["sub"] == "ada"
        passed[0], liar.away = 3600.0, True
        assert sign_in.finish(mine, answer, jti="j", now=now)["sub"] == "ada"
        passed[0], liar.away = 3610.0, False
        with pytest.raises(PolicyDenied):
            sign_in.finish(mine, answer, jti="j", now=now)
        liar.token = partial(liar.signed, key=liar.moved)
        assert sign_in.finish(mine, answer, jti="j", now=now)["sub"] == "ada"
    finally:
        liar.moved, liar.says, liar.away = None, {}, False


def test_an_id_token_may_have_a_header_of_its_providers_own_and_no_key_id(liar: Provider, http: Client) -> None:
    now = datetime.now(UTC)
    sign_in, mine, answer = _begun(liar, http, now)
    for more in ({"pi.atm": "x"}, {"kid": None}):
        liar.token = partial(liar.signed, **more)
        assert sign_in.finish(mine, answer, jti="j", now=now)["sub"] == "ada"


def test_ed25519_signs_people_in_with_the_hash_of_their_access_token(liar: Provider, http: Client) -> None:
    """OpenID Connect Core §3.1.3.6: with Ed25519 it is the half of SHA-512."""
    now, before = datetime.now(UTC), liar.key
    sign_in, mine, answer = _begun(liar, http, now)
    liar.key = OKPKey.generate_key("Ed25519", {"kid": "k1"})
    half = urlsafe_b64encode(sha512(b"at").digest()[:32]).rstrip(b"=").decode()
    try:
        liar.token = lambda claims: liar.signed(claims | {"at_hash": half}, alg="Ed25519")
        assert sign_in.finish(mine, answer, jti="j", now=now)["sub"] == "ada"
        liar.token = lambda claims: liar.signed(claims | {"at_hash": half[::-1]}, alg="Ed25519")
        with pytest.raises(PolicyDenied):
            sign_in.finish(mine, answer, jti="j", now=now)
    finally:
        liar.key = before


@pytest.mark.parametrize("how", FORGED)
def test_an_id_token_that_does_not_hold_signs_nobody_in(liar: Provider, http: Client, how: str) -> None:
    now = datetime.now(UTC)
    sign_in, mine, answer = _begun(liar, http, now)
    liar.token = partial(FORGED[how], liar)
    with pytest.raises(PolicyDenied):
        sign_in.finish(mine, answer, jti="j", now=now)


class Hanging(Client):
    """A way to a provider that takes its time, and then does not answer."""

    def __init__(self) -> None:
        super().__init__(policy=POLICY, pool_size=1)
        self.asked, self.begun, self.over = 0, threading.Event(), threading.Event()

    def send(self, request: HttpRequest, **how: Any) -> NotSent:
        self.asked += 1
        self.begun.set()
        assert self.over.wait(PATIENCE)
        return NotSent(reason="it does not answer")


def test_a_provider_that_hangs_is_asked_by_one_thread_and_left_alone_for_a_while() -> None:
    settings = SignInSettings(
        issuer="http://127.0.0.1:9", client_id=CLIENT_ID, client_secret=Secret("x"), redirect_uri=CALLBACK
    )
    now = [0.0]
    with Hanging() as hanging:
        sign_in = SignIn(settings, hanging, monotonic=lambda: now[0])

        def ask() -> None:
            with pytest.raises(Unavailable):
                sign_in.begin(Secret("x"))

        first = threading.Thread(target=ask)
        first.start()
        assert hanging.begun.wait(PATIENCE)
        ask()
        assert first.is_alive(), "nobody waits for the one who asks"
        hanging.over.set()
        first.join(30)
        ask()
        assert hanging.asked == 1
        now[0] += 10
        ask()
        assert hanging.asked == 2


def test_a_provider_that_hangs_over_codes_holds_a_few_threads_only(liar: Provider) -> None:
    """Anybody may come with a code, and each is sent to the provider with our secret."""
    now, asked, over = datetime.now(UTC), threading.Semaphore(0), threading.Event()
    with Client(policy=POLICY, pool_size=AT_ONCE) as client:
        sign_in, mine, answer = _begun(liar, client, now)

        def token(claims: dict[str, Any]) -> str:
            asked.release()
            assert over.wait(PATIENCE)
            return liar.signed(claims)

        liar.token = token
        finish = partial(sign_in.finish, mine, answer, jti="j", now=now)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            under_way = [threads.submit(finish) for _ in range(AT_ONCE)]
            assert all(asked.acquire(timeout=PATIENCE) for _ in under_way)
            with pytest.raises(Unavailable, match="under way"):
                finish()
            over.set()
            assert [one.result()["sub"] for one in under_way] == ["ada"] * AT_ONCE
        assert finish()["sub"] == "ada"
