"""Assertions as whoever checks them reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from identity.errors import Misconfigured
from identity.model import ProviderConnection
from identity.oauth.assertions import check_private_key, client_assertion, grant_assertion
from identity.providers.google import GOOGLE
from identity.providers.profile import Assertion
from identity.providers.salesforce import SALESFORCE
from identity.secret import Secret
from tests.identity.keys import pem
from tests.identity.world import START

OWNER = ProviderConnection(
    id="forge",
    tenant=None,
    provider="oidc",
    client_id="the-client",
    scopes=(),
    api_url="https://api.example",
    authorize_url="https://as.example/authorize",
    token_url="https://as.example/token",
    config={"key_id": "k1"},
)
NOW = int(START.timestamp())


def opened(token: str, algorithm: str = "RS256") -> tuple[dict[str, Any], dict[str, Any]]:
    kind: Any = {"R": RSAKey, "P": RSAKey, "E": ECKey}.get(algorithm[0], OKPKey)
    kind = OKPKey if algorithm == "Ed25519" else kind
    key = kind.import_key(pem("RS256" if algorithm == "PS256" else algorithm))
    found = jwt.decode(token, key, algorithms=[algorithm])
    return dict(found.header), dict(found.claims)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "Ed25519"])
def test_a_client_names_itself_by_the_key_it_has(algorithm: str) -> None:
    header, claims = opened(client_assertion(OWNER, Secret(pem(algorithm)), now=START, jti="once"), algorithm)
    assert header == {"typ": "JWT", "alg": algorithm, "kid": "k1"}
    assert claims == {
        "iss": "the-client",
        "sub": "the-client",
        "aud": "https://as.example/token",
        "jti": "once",
        "iat": NOW,
        "exp": NOW + 120,
    }


def test_a_key_is_looked_at_when_it_is_taken() -> None:
    for algorithm in ("RS256", "ES256", "ES384", "Ed25519"):
        check_private_key(OWNER, Secret(pem(algorithm)))
    small, large = (rsa.generate_private_key(65537, bits).private_numbers() for bits in (1024, 2048))
    p, q = small.p * small.q, large.p  # p is no prime
    d = pow(65537, -1, (p - 1) * (q - 1))
    crt = {"dmp1": rsa.rsa_crt_dmp1(d, p), "dmq1": rsa.rsa_crt_dmq1(d, q), "iqmp": rsa.rsa_crt_iqmp(p, q)}
    wrong = rsa.RSAPrivateNumbers(p=p, q=q, d=d, **crt, public_numbers=rsa.RSAPublicNumbers(65537, p * q))
    key = wrong.private_key(unsafe_skip_rsa_key_validation=True)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    for unsound in (text, "-----BEGIN PRIVATE KEY-----", "hunter2"):
        with pytest.raises(Misconfigured, match="not an unencrypted RSA") as told:
            check_private_key(OWNER, Secret(unsound))
        assert unsound[:7] not in str(told.value)


def test_the_algorithm_and_the_audience_are_the_connections_choice() -> None:
    owner = replace(OWNER, config={"signing_alg": "PS256", "assertion_audience": "https://as.example"})
    header, claims = opened(client_assertion(owner, Secret(pem()), now=START, jti="once"), "PS256")
    assert (header["alg"], claims["aud"]) == ("PS256", "https://as.example")
    with pytest.raises(Misconfigured, match="does not sign ES256"):
        client_assertion(replace(OWNER, config={"signing_alg": "ES256"}), Secret(pem()), now=START, jti="once")
    with pytest.raises(Misconfigured, match="does not sign none"):
        client_assertion(replace(OWNER, config={"signing_alg": "none"}), Secret(pem()), now=START, jti="once")


def test_googles_service_account_signs_with_the_key_it_names_and_perhaps_for_nobody() -> None:
    owner = replace(OWNER, config={"service_account": "robot@project.iam.gserviceaccount.com", "key_id": "k2"})
    assert GOOGLE.assertion is not None
    token = grant_assertion(
        owner, GOOGLE.assertion, Secret(pem()), subject=None, scopes=("a", "b"), now=START, jti="once"
    )
    header, claims = opened(token)
    assert header["kid"] == "k2"
    assert "sub" not in claims


def test_salesforce_wants_to_know_as_whom() -> None:
    assert SALESFORCE.assertion is not None
    with pytest.raises(Misconfigured, match="subject"):
        grant_assertion(OWNER, SALESFORCE.assertion, Secret(pem()), subject=None, scopes=(), now=START, jti="once")


def test_an_issuer_that_is_not_configured_is_named() -> None:
    with pytest.raises(Misconfigured, match="service_account"):
        grant_assertion(
            OWNER, Assertion(issuer="service_account"), Secret(pem()), subject=None, scopes=(), now=START, jti="once"
        )


@pytest.mark.parametrize("text", ["canary", "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----"])
def test_a_broken_key_is_not_quoted(text: str) -> None:
    with pytest.raises(Misconfigured) as error:
        client_assertion(OWNER, Secret(text), now=START, jti="once")
    assert "canary" not in str(error.value)
    assert error.value.__cause__ is None
