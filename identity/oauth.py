"""OAuth requests, built with Authlib's pieces: authorization URLs, PKCE, client authentication, assertions.

Sending and reading are ours (`token_endpoint`, `answers`): Authlib's clients guess the grant type, take a refusal for
a token, and raise on an odd lifetime after the provider has rotated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from authlib.oauth2.auth import ClientAuth as AuthlibClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from identity.errors import Misconfigured
from identity.http import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import ClientAuth, Profile
from identity.secret import Secret

_FORM = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client registration with its secret opened, and how its provider wants to be spoken to."""

    connection: ProviderConnection
    profile: Profile
    secret: Secret


def authorization_url(
    connection: ProviderConnection,
    profile: Profile,
    *,
    redirect_uri: str,
    scopes: Sequence[str],
    state: str,
    verifier: str,
) -> str:
    """Where the browser goes to consent (RFC 6749 §4.1.1) with an S256 challenge (RFC 7636)."""
    extra = dict(profile.authorize_extra)
    if scopes:
        extra[profile.scopes_parameter] = profile.scope_separator.join(scopes)
    url: str = prepare_grant_uri(
        connection.authorize_url,
        connection.client_id,
        "code",
        redirect_uri=redirect_uri,
        state=state,
        code_challenge=create_s256_code_challenge(verifier),  # type: ignore[no-untyped-call]
        code_challenge_method="S256",
        **extra,
    )
    return url


def exchange_request(client: Client, *, code: str, verifier: str, redirect_uri: str) -> HttpRequest:
    """A code for tokens (RFC 6749 §4.1.3). The grant type is named here, never guessed."""
    return _form(client, "authorization_code", code=code, redirect_uri=redirect_uri, code_verifier=verifier)


def refresh_request(client: Client, *, refresh_token: Secret) -> HttpRequest:
    """A refresh token for new tokens (RFC 6749 §6), for the scopes it has."""
    return _form(client, "refresh_token", refresh_token=refresh_token.reveal())


def client_credentials_request(client: Client, *, scopes: Sequence[str]) -> HttpRequest:
    """The client's own token (RFC 6749 §4.4)."""
    parameters = dict(client.profile.client_credentials_extra)
    if scopes:
        parameters["scope"] = client.profile.scope_separator.join(scopes)
    return _form(client, "client_credentials", **parameters)


def app_assertion(*, issuer: str, private_key: Secret, now: datetime) -> str:
    """A GitHub App's own JWT, for minting installation tokens. Raises Misconfigured.

    https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app
    """
    claims = {
        "iss": issuer,
        "iat": int((now - timedelta(seconds=60)).timestamp()),  # their clock may be behind ours
        "exp": int((now + timedelta(minutes=9)).timestamp()),
    }
    try:
        key = RSAKey.import_key(private_key.reveal())
        return jwt.encode({"alg": "RS256"}, claims, key, algorithms=["RS256"])
    except (JoseError, ValueError):
        # Not chained: the error may quote the key.
        raise Misconfigured(f"the private key of app {issuer} is not an RSA key in PEM") from None


def installation_request(
    connection: ProviderConnection, *, installation: str, private_key: Secret, now: datetime
) -> HttpRequest:
    """A token of one installation of a GitHub App. Raises Misconfigured.

    https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
    """
    issuer = connection.config.get("app_id", connection.client_id)
    assertion = app_assertion(issuer=issuer, private_key=private_key, now=now)
    headers = {
        "authorization": f"Bearer {assertion}",
        "accept": "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
    }
    path = f"/app/installations/{quote(installation, safe='')}/access_tokens"
    return HttpRequest(method="POST", url=connection.api_url.rstrip("/") + path, headers=headers)


def _form(client: Client, grant_type: str, **parameters: str) -> HttpRequest:
    body = prepare_token_request(grant_type, "", **parameters)
    identifier, secret = client.connection.client_id, client.secret.reveal()
    if client.profile.client_auth is ClientAuth.BASIC:
        # RFC 6749 §2.3.1 wants both form-urlencoded first; Authlib does not do it.
        identifier, secret = quote(identifier, safe=""), quote(secret, safe="")
    auth: Any = AuthlibClientAuth(identifier, secret, str(client.profile.client_auth))
    url, headers, signed = auth.prepare("POST", client.connection.token_url, dict(_FORM), body)
    return HttpRequest(method="POST", url=url, headers=_text(headers), body=signed.encode())


def _text(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
