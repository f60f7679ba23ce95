"""Tokens of a platform in the place of a key: taken to the letter, refused for every letter that differs."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey, RSAKey

from identity.agents.api_keys import Role, revoke_key
from identity.agents.workloads import Workload, add_workload
from identity.errors import BadInput
from identity.model import Scope, ScopeKind
from identity.secret import Secret
from tests.api.agents_api import AgentsApi
from tests.identity.providers import PretendProvider, pretend_provider

KEY = OKPKey.generate_key("Ed25519", {"kid": "k1"})
STRANGERS = OKPKey.generate_key("Ed25519", {"kid": "k1"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
LENIENT = jws.JWSRegistry(algorithms=["Ed25519", "RS256", "RS384", "HS256"], strict_check_header=False)
POD = "system:serviceaccount:acme:bot"
LIVE = timedelta(hours=1)


@pytest.fixture
def issuer() -> Iterator[PretendProvider]:
    """The platform, whose key set holds KEY and RSA."""
    with pretend_provider() as platform:
        platform.user = {"keys": [KEY.as_dict(private=False), RSA.as_dict(private=False)]}
        yield platform


def trusted(issuer: PretendProvider, **other: str) -> Workload:
    pod = Workload(issuer="https://k8s.example", audience="aswhom", subject=POD, jwks_url=f"{issuer.url}/jwks")
    return replace(pod, **other)


def trust(api: AgentsApi, workload: Workload, *, tenant: str = "acme", role: Role = Role.AGENT) -> str:
    """Let *workload* call as the tenant's agent `bot`; the id of the key it is."""
    id = api.caller(api.key(tenant, role=role)).key
    api.database.write(lambda c: add_workload(c, id, workload, by="test", now=api.now()))
    return id


def token(
    api: AgentsApi,
    *,
    key: Any = KEY,
    alg: str = "Ed25519",
    typ: str | None = "JWT",
    more: Mapping[str, Any] = MappingProxyType({}),
    **changed: Any,
) -> Secret:
    """A good token but for what is *changed*, with *more* in its header; None leaves a claim or parameter out."""
    now = api.now().timestamp()
    claims = {"iss": "https://k8s.example", "sub": POD, "aud": ["other", "aswhom"], "iat": now}
    claims |= {"exp": now + LIVE.total_seconds()} | changed
    header = {"alg": alg, "kid": key.kid, "typ": typ, **more}
    header = {name: value for name, value in header.items() if value is not None}
    body = json.dumps({name: value for name, value in claims.items() if value is not None})
    return Secret(jws.serialize_compact(header, body, key, registry=LENIENT))


def status(api: AgentsApi, secret: Secret) -> int:
    answered: int = api.ask("GET", "/v1/jobs", secret).status_code
    return answered


def test_a_workload_does_what_its_agent_may_and_no_more(api: AgentsApi, issuer: PretendProvider) -> None:
    trust(api, trusted(issuer))
    sent = token(api)
    made = api.execute(key=sent)
    assert made.status_code == 202
    assert api.ask("GET", f"/v1/jobs/{made.json['job']['id']}", sent).json["agent"] == "acme.bot"
    assert api.ask("GET", "/v1/deliveries", sent).status_code == 403
    assert status(api, token(api, key=RSA, alg="RS256")) == 200
    assert status(api, token(api, aud="aswhom", typ=None)) == 200
    for more in ({"pi.atm": "x", "nonce": "n"}, {"kid": None}):  # RFC 7515 §4 and §4.1.4
        assert status(api, token(api, more=more)) == 200
    assert status(api, token(api, key=RSA, alg="RS384")) == 200
    assert issuer.asked == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://k8s.example/"},
        {"sub": f"{POD}2"},
        {"sub": None},
        {"aud": "other"},
        {"aud": ["other", 1]},
        {"aud": None},
        {"exp": None},
        {"exp": "tomorrow"},
        {"iat": None},
        {"exp": True},
        {"nbf": "now"},
        {"key": STRANGERS},
        {"key": OKPKey.generate_key("Ed25519", {"kid": "k2"})},
        {"key": OTHER_RSA, "alg": "RS256"},
        {"more": {"crit": ["alg"]}},
        {"more": {"kid": None}, "key": STRANGERS},
        {"key": OctKey.import_key("0" * 64, {"kid": "k1"}), "alg": "HS256"},
        {"typ": "secevent+jwt"},
        {"typ": "cap+jwt"},
        {"typ": "application/logout+jwt"},
    ],
    ids="-".join,
)
def test_whatever_is_not_to_the_letter_is_refused(
    sqlite_api: AgentsApi, issuer: PretendProvider, changed: dict[str, Any]
) -> None:
    trust(sqlite_api, trusted(issuer))
    assert status(sqlite_api, token(sqlite_api)) == 200
    assert status(sqlite_api, token(sqlite_api, **changed)) == 401


def test_a_token_counts_in_its_time_alone(sqlite_api: AgentsApi, issuer: PretendProvider) -> None:
    trust(sqlite_api, trusted(issuer))
    now = sqlite_api.now().timestamp()
    assert status(sqlite_api, token(sqlite_api, exp=now - 20)) == 200  # their clock may be a little behind
    assert status(sqlite_api, token(sqlite_api, exp=now - 60)) == 401
    assert status(sqlite_api, token(sqlite_api, iat=now + 60)) == 401
    assert status(sqlite_api, token(sqlite_api, nbf=now + 60)) == 401
    assert status(sqlite_api, token(sqlite_api, exp=now + 86_401)) == 401  # a key in disguise


def headed(header: str) -> str:
    """A token of that header, which nobody signed."""
    return f"{urlsafe_b64encode(header.encode()).decode().rstrip('=')}.e30.x"


@pytest.mark.parametrize(
    "sent",
    [
        *("a.b.c", "..", "eyJhbGciOiJub25lIn0.e30.", "e30.e30.e30"),
        *map(headed, ('["alg"]', '["alg","b64"]', '"alg"', '{"alg":[],"typ":[],"kid":"k1"}')),
    ],
)
def test_what_is_no_token_is_refused(sqlite_api: AgentsApi, sent: str) -> None:
    assert status(sqlite_api, Secret(sent)) == 401


@pytest.mark.parametrize("name", ["iss", "sub", "aud"])
def test_a_token_that_names_what_no_name_holds_is_refused(api: AgentsApi, name: str) -> None:
    for text in ("\0", "\ud800"):  # PostgreSQL takes neither in a text
        named: dict[str, Any] = {name: text}
        assert status(api, token(api, **named)) == 401


def test_a_header_that_asks_for_what_is_no_list_is_refused(sqlite_api: AgentsApi, issuer: PretendProvider) -> None:
    trust(sqlite_api, trusted(issuer))
    header = urlsafe_b64encode(b'{"alg":"Ed25519","kid":"k1","crit":1}').decode().rstrip("=")
    _, _, rest = token(sqlite_api).reveal().partition(".")
    assert status(sqlite_api, Secret(f"{header}.{rest}")) == 401


def test_its_end_is_that_of_its_key(api: AgentsApi, issuer: PretendProvider) -> None:
    id = trust(api, trusted(issuer))
    sent = token(api)
    assert api.database.write(lambda c: revoke_key(c, id, by="test", now=api.now()))
    assert status(api, sent) == 401


def test_a_revocation_of_its_agent_reaches_tokens_yet_to_be_signed(api: AgentsApi, issuer: PretendProvider) -> None:
    trust(api, trusted(issuer))
    api.revoke(Scope(kind=ScopeKind.AGENT, key="acme.bot"))
    assert status(api, token(api)) == 401


def test_one_subject_calls_two_tenants_by_two_audiences_and_never_by_one(
    api: AgentsApi, issuer: PretendProvider
) -> None:
    trust(api, trusted(issuer))
    trust(api, trusted(issuer, audience="globex"), tenant="globex")
    assert api.execute(key=token(api, aud="globex")).json["job"]["agent"] == "globex.bot"
    assert status(api, token(api, aud=["aswhom", "globex"])) == 401
    with pytest.raises(BadInput, match="called by these tokens already"):
        trust(api, trusted(issuer), tenant="globex")


def test_a_key_that_was_taken_out_lets_nobody_in_for_long(sqlite_api: AgentsApi, issuer: PretendProvider) -> None:
    """Those of transmitters serve for a day, since they only take authority away."""
    trust(sqlite_api, trusted(issuer))
    assert status(sqlite_api, token(sqlite_api)) == 200
    issuer.user = None  # whoever stole it keeps us from the set
    sqlite_api.monotonic += timedelta(minutes=59).total_seconds()
    assert status(sqlite_api, token(sqlite_api)) == 200
    sqlite_api.monotonic += timedelta(minutes=2).total_seconds()
    assert status(sqlite_api, token(sqlite_api)) == 503
    issuer.user = {"keys": [RSA.as_dict(private=False)]}
    sqlite_api.monotonic += timedelta(minutes=1).total_seconds()
    assert status(sqlite_api, token(sqlite_api)) == 401
    assert status(sqlite_api, token(sqlite_api, key=RSA, alg="RS256")) == 200


def test_without_the_issuers_keys_nobody_is_refused_for_good(sqlite_api: AgentsApi, issuer: PretendProvider) -> None:
    trust(sqlite_api, trusted(issuer))
    issuer.user = None
    answer = sqlite_api.ask("GET", "/v1/jobs", token(sqlite_api))
    assert (answer.status_code, answer.json["type"]) == (503, "urn:aswhom:problem:unavailable")
    assert answer.headers["Retry-After"] == "5"
    assert "keys of the token's issuer" in answer.json["detail"]
    assert issuer.url not in answer.text
