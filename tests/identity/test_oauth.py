"""OAuth requests as they go over the wire."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from joserfc import jwt
from joserfc.jwk import RSAKey

from identity.errors import Misconfigured
from identity.http.client import HttpRequest
from identity.model import ProviderConnection
from identity.oauth.requests import (
    Client,
    Narrowing,
    authorization_url,
    exchange_request,
    installation_request,
    refresh_request,
)
from identity.providers import PROFILES, profile_of
from identity.providers.profile import ClientAuth
from identity.secret import Secret
from tests.identity.keys import pem
from tests.identity.world import START


def client(provider: str = "github", *, auth: ClientAuth | None = None, secret: str = "s:e/c r+t") -> Client:
    profile = PROFILES[provider]
    connection = ProviderConnection(
        id="forge",
        tenant=None,
        provider=provider,
        client_id="id:1",
        scopes=("a", "b"),
        api_url="https://api.example/",
        authorize_url="https://example/authorize?prompt=x",
        token_url="https://example/token",
    )
    profile = replace(profile, client_auth=auth) if auth else profile
    return Client(connection=connection, profile=profile, secret=Secret(secret), now=START, jti="once")


def form(request: HttpRequest) -> dict[str, str]:
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["accept"] == "application/json"
    return {name: values[0] for name, values in parse_qs(request.body.decode(), strict_parsing=True).items()}


def test_the_client_names_itself_in_the_body() -> None:
    request = refresh_request(client(), refresh_token=Secret("ghr_1"))
    assert form(request) == {
        "grant_type": "refresh_token",
        "refresh_token": "ghr_1",
        "client_id": "id:1",
        "client_secret": "s:e/c r+t",
    }
    assert "authorization" not in request.headers


def test_the_client_names_itself_in_the_header_urlencoded_first() -> None:
    request = refresh_request(client(auth=ClientAuth.BASIC), refresh_token=Secret("r"))
    identifier, secret = b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().split(":")
    assert (unquote(identifier), unquote(secret)) == ("id:1", "s:e/c r+t")
    assert "client_secret" not in form(request)


def test_a_code_is_exchanged_as_a_code() -> None:
    request = exchange_request(client(), code="c&d", verifier="v" * 43, redirect_uri="https://a/cb?x=1")
    sent = form(request)
    assert (sent["grant_type"], sent["code"]) == ("authorization_code", "c&d")
    assert (sent["code_verifier"], sent["redirect_uri"]) == ("v" * 43, "https://a/cb?x=1")


@pytest.mark.parametrize(("provider", "parameter"), [("github", "scope"), ("slack", "user_scope")])
def test_an_authorization_url_carries_pkce_and_keeps_its_query(provider: str, parameter: str) -> None:
    asked = client(provider)
    url = authorization_url(
        asked.connection,
        asked.profile,
        redirect_uri="https://a/cb",
        scopes=("a", "b"),
        state="st",
        # RFC 7636, appendix B
        verifier="dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    )
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert query["code_challenge"] == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert (query["response_type"], query["state"], query["prompt"]) == ("code", "st", "x")
    assert query[parameter] in ("a b", "a,b")
    assert "client_secret" not in query


def test_an_app_signs_for_its_installation() -> None:
    # GitHub hands keys out in the older form, `BEGIN RSA PRIVATE KEY`.
    older = (
        serialization.load_pem_private_key(pem().encode(), password=None)
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        .decode()
    )
    connection = replace(client().connection, config={"app_id": "12345"})
    request = installation_request(
        connection, installation="77/../1", private_key=Secret(older), now=START, only=Narrowing()
    )
    assert request.url == "https://api.example/app/installations/77%2F..%2F1/access_tokens"
    assert request.body == b""
    token = request.headers["authorization"].removeprefix("Bearer ")
    claims: dict[str, Any] = jwt.decode(token, RSAKey.import_key(pem()), algorithms=["RS256"]).claims
    assert claims["iss"] == "12345"
    assert claims["exp"] - claims["iat"] <= 600
    assert claims["iat"] < START.timestamp() < claims["exp"]


@pytest.mark.parametrize("text", ["canary", "-----BEGIN RSA PRIVATE KEY-----\ncanary\n-----END RSA PRIVATE KEY-----"])
def test_a_broken_key_is_the_operators_fault_and_is_not_quoted(text: str) -> None:
    with pytest.raises(Misconfigured) as error:
        installation_request(
            client().connection, installation="1", private_key=Secret(text), now=START, only=Narrowing()
        )
    assert "canary" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_token_narrowed_to_nothing_is_not_asked_for() -> None:
    only = Narrowing(repositories=())
    with pytest.raises(Misconfigured, match="no repository"):
        installation_request(client().connection, installation="1", private_key=Secret(pem()), now=START, only=only)


def test_the_rows_agree_with_their_names() -> None:
    assert {name: profile.name for name, profile in PROFILES.items()} == {name: name for name in PROFILES}


def test_an_unknown_provider_is_the_operators_fault() -> None:
    with pytest.raises(Misconfigured, match="known are atlassian, github"):
        profile_of(PROFILES, "gitlab")
