"""Signing in at a provider that lies, mixes things up, or hangs."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import OctKey, RSAKey

from identity.addresses import AddressPolicy
from identity.console.sign_in import AT_ONCE, SignIn, SignInSettings
from identity.errors import PolicyDenied, Unavailable
from identity.http import Client, HttpRequest, NotSent
from identity.secret import Secret
from tests.console.console_app import BASE
from tests.console.provider import CLIENT_ID, CLIENT_SECRET, Provider, provider

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
    "with a header that is no object": lambda p, c: f"WyJhbGciXQ.{p.signed(c).partition('.')[2]}",
}


def _begun(liar: Provider, http: Client, now: datetime) -> tuple[SignIn, Secret, dict[str, str]]:
    """A sign-in that was begun, the browser's secret, and the answer that would be right."""
    settings = SignInSettings(
        issuer=liar.issuer, client_id=CLIENT_ID, client_secret=Secret(CLIENT_SECRET), redirect_uri=CALLBACK
    )
    sign_in, mine = SignIn(settings, http), Secret(secrets.token_urlsafe(32))
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
        assert self.over.wait(30)
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
        assert hanging.begun.wait(30)
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
            assert over.wait(30)
            return liar.signed(claims)

        liar.token = token
        finish = partial(sign_in.finish, mine, answer, jti="j", now=now)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            under_way = [threads.submit(finish) for _ in range(AT_ONCE)]
            assert all(asked.acquire(timeout=30) for _ in under_way)
            with pytest.raises(Unavailable, match="under way"):
                finish()
            over.set()
            assert [one.result()["sub"] for one in under_way] == ["ada"] * AT_ONCE
        assert finish()["sub"] == "ada"
