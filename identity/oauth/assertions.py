"""Signed assertions: the client's own (RFC 7523 §2.2), those exchanged for a token (§2.1), and a GitHub App's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from identity.errors import Misconfigured
from identity.model import ProviderConnection
from identity.providers.profile import Assertion
from identity.secret import Secret

CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "Ed25519")

_CLIENT_LIFETIME = timedelta(minutes=2)  # Auth0 accepts at most five minutes
_BEHIND = timedelta(seconds=60)  # the provider's clock may be behind ours

Key = RSAKey | ECKey | OKPKey


def check_private_key(owner: ProviderConnection, pem: Secret) -> None:
    """Check that a key can sign, including its primes. Raises Misconfigured.

    Used when a key is added: the check costs sixty times a signature, so stored keys are not checked again.
    """
    _key(owner, pem, sound=False)


def client_assertion(owner: ProviderConnection, key: Secret, *, now: datetime, jti: str) -> str:
    """Return the JWT that authenticates the client at a token endpoint (RFC 7523 §2.2, §3). Raises Misconfigured.

    Its audience is the token endpoint's address, or the connection's `assertion_audience`.
    """
    claims = {
        "iss": owner.client_id,
        "sub": owner.client_id,
        "aud": owner.config.get("assertion_audience", owner.token_url),
        "jti": jti,
        "iat": _seconds(now),
        "exp": _seconds(now + _CLIENT_LIFETIME),
    }
    return _signed(owner, key, claims)


def grant_assertion(
    owner: ProviderConnection,
    form: Assertion,
    key: Secret,
    *,
    subject: str | None,
    scopes: Sequence[str],
    now: datetime,
    jti: str,
) -> str:
    """Return the JWT that is exchanged for a token (RFC 7523 §2.1). Raises Misconfigured.

    *subject* is whom the token acts as, where the provider lets a service act for a person.
    """
    issuer = owner.client_id if form.issuer is None else owner.config.get(form.issuer)
    if not issuer:
        raise Misconfigured(f"provider connection {owner.id} does not say its {form.issuer}: give it by --config")
    if form.needs_subject and not subject:
        raise Misconfigured(f"the assertion of provider connection {owner.id} needs a subject to act as")
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": owner.config.get("assertion_audience", form.audience or owner.token_url),
        "jti": jti,
        "iat": _seconds(now),
        "exp": _seconds(now + form.lifetime),
    }
    if subject:
        claims["sub"] = subject
    if form.scopes_inside and scopes:
        claims["scope"] = " ".join(scopes)
    return _signed(owner, key, claims)


def app_assertion(owner: ProviderConnection, key: Secret, *, now: datetime) -> str:
    """Return a GitHub App's own JWT, for minting installation tokens. Raises Misconfigured.

    https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app
    """
    claims = {
        "iss": owner.config.get("app_id", owner.client_id),
        "iat": _seconds(now - _BEHIND),
        "exp": _seconds(now + timedelta(minutes=9)),
    }
    return _signed(owner, key, claims)


def _signed(owner: ProviderConnection, pem: Secret, claims: Mapping[str, Any]) -> str:
    key, algorithm = _key(owner, pem)
    algorithm = owner.config.get("signing_alg", algorithm)
    header = {"alg": algorithm} | ({"kid": owner.config["key_id"]} if "key_id" in owner.config else {})
    try:
        return jwt.encode(header, dict(claims), key, algorithms=list(ALGORITHMS))
    except (JoseError, ValueError, TypeError):
        # Not chained: the error may quote the key.
        raise Misconfigured(f"the private key of provider connection {owner.id} does not sign {algorithm}") from None


def _key(owner: ProviderConnection, pem: Secret, *, sound: bool = True) -> tuple[Key, str]:
    """Return the key, and its default algorithm, which the connection's `signing_alg` may override.

    *sound*: its primes were checked when it was added.
    """
    # The error raised below does not quote this one, whose text may hold the key.
    with suppress(ValueError, TypeError):
        match load_pem_private_key(pem.reveal().encode(), password=None, unsafe_skip_rsa_key_validation=sound):
            case RSAPrivateKey() as key:
                return RSAKey(key, key), "RS256"
            case EllipticCurvePrivateKey(curve=curve) as key if curve.name in ("secp256r1", "secp384r1"):
                return ECKey(key, key), "ES256" if curve.name == "secp256r1" else "ES384"
            case Ed25519PrivateKey() as key:
                return OKPKey(key, key), "Ed25519"
    raise Misconfigured(
        f"the private key of provider connection {owner.id} is not an unencrypted RSA, P-256, P-384 or Ed25519 key "
        "in PEM"
    )


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
