"""OAuth requests, built with Authlib's functions: authorization URLs, PKCE, client authentication.

Sending and reading are done here (`token_endpoint`, `answers`): Authlib's clients guess the grant type, mistake a
refusal for a token, and raise on an odd lifetime after the provider has rotated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from authlib.oauth2.auth import ClientAuth as AuthlibClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from identity.errors import Misconfigured
from identity.http.client import HttpRequest
from identity.model import ProviderConnection
from identity.oauth.assertions import CLIENT_ASSERTION, JWT_BEARER, app_assertion, client_assertion, grant_assertion
from identity.providers.profile import ClientAuth, Profile
from identity.secret import Secret

_FORM = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client registration with its secret opened, and its provider's profile."""

    connection: ProviderConnection
    profile: Profile
    secret: Secret  # the client secret, or the private key
    now: datetime
    jti: str  # for the one assertion that a request may carry: never reused

    @property
    def auth(self) -> ClientAuth:
        """The client authentication method: the connection's choice, or the provider's default."""
        return client_auth(self.connection, self.profile)


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """The limits of an installation's token; None, or an empty mapping, leaves all that the installation has."""

    repositories: tuple[str, ...] | None = None  # names without the owner
    permissions: Mapping[str, str] | None = None  # {"issues": "write"}


def client_auth(connection: ProviderConnection, profile: Profile) -> ClientAuth:
    """Return how a connection's client authenticates. Raises Misconfigured."""
    chosen = connection.config.get("client_auth", profile.client_auth)
    try:
        return ClientAuth(chosen)
    except ValueError:
        known = ", ".join(ClientAuth)
        raise Misconfigured(
            f"provider connection {connection.id} authenticates by {chosen!r}: known are {known}"
        ) from None


def authorization_url(
    connection: ProviderConnection,
    profile: Profile,
    *,
    redirect_uri: str,
    scopes: Sequence[str],
    state: str,
    verifier: str,
) -> str:
    """Return the URL where the browser consents (RFC 6749 §4.1.1), with an S256 challenge (RFC 7636)."""
    asked = {profile.scopes_parameter: profile.scope_separator.join(scopes)} if scopes else {}
    url: str = prepare_grant_uri(
        connection.authorize_url,
        connection.client_id,
        "code",
        redirect_uri=redirect_uri,
        state=state,
        code_challenge=create_s256_code_challenge(verifier),  # type: ignore[no-untyped-call]
        code_challenge_method="S256",
        **asked,
    )
    return _with(url, profile.authorize_extra)


def exchange_request(client: Client, *, code: str, verifier: str, redirect_uri: str) -> HttpRequest:
    """Build the exchange of a code for tokens (RFC 6749 §4.1.3). The grant type is explicit, never guessed."""
    return _form(client, "authorization_code", code=code, redirect_uri=redirect_uri, code_verifier=verifier)


def refresh_request(client: Client, *, refresh_token: Secret) -> HttpRequest:
    """Build the exchange of a refresh token for new tokens (RFC 6749 §6), for the scopes it has."""
    return _form(client, "refresh_token", refresh_token=refresh_token.reveal())


def client_credentials_request(client: Client, *, scopes: Sequence[str]) -> HttpRequest:
    """Build the request for the client's own token (RFC 6749 §4.4)."""
    parameters = dict(client.profile.client_credentials_extra)
    if scopes:
        parameters["scope"] = client.profile.scope_separator.join(scopes)
    return _form(client, "client_credentials", **parameters)


def jwt_bearer_request(client: Client, *, subject: str | None, scopes: Sequence[str]) -> HttpRequest:
    """Build the exchange of a signed assertion for a token (RFC 7523 §2.1). Raises Misconfigured.

    Only the assertion authenticates.
    """
    form, profile, owner = client.profile.assertion, client.profile, client.connection
    if form is None:
        raise Misconfigured(f"{profile.title} has no JWT bearer grant")
    assertion = grant_assertion(
        owner, form, client.secret, subject=subject, scopes=scopes, now=client.now, jti=client.jti
    )
    parameters = {"assertion": assertion}
    if scopes and not form.scopes_inside and form.scopes_beside:
        parameters["scope"] = profile.scope_separator.join(scopes)
    body = _with(prepare_token_request(JWT_BEARER, "", **parameters), profile.token_extra)
    return HttpRequest(method="POST", url=owner.token_url, headers=_FORM, body=body.encode())


def installation_request(
    connection: ProviderConnection, *, installation: str, private_key: Secret, now: datetime, only: Narrowing
) -> HttpRequest:
    """Build the request for a token of one GitHub App installation, limited to *only*. Raises Misconfigured.

    https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
    """
    headers = {
        "authorization": f"Bearer {app_assertion(connection, private_key, now=now)}",
        "accept": "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
    }
    wanted: dict[str, Any] = {}
    if only.repositories == ():  # an empty list might be taken for a missing one, which means all of them
        raise Misconfigured(f"installation {installation} is narrowed to no repository at all")
    if only.repositories is not None:
        wanted["repositories"] = list(only.repositories)
    if only.permissions is not None:
        wanted["permissions"] = dict(only.permissions)
    path = f"/app/installations/{quote(installation, safe='')}/access_tokens"
    if wanted:
        headers["content-type"] = "application/json"
    body = json.dumps(wanted).encode() if wanted else b""
    return HttpRequest(method="POST", url=connection.api_url.rstrip("/") + path, headers=headers, body=body)


def revocation_request(client: Client, *, token: Secret, hint: str, url: str) -> HttpRequest:
    """Build the revocation of a token (RFC 7009 §2.1).

    *hint* is access_token or refresh_token. Raises Misconfigured.
    """
    body = urlencode({"token": token.reveal(), "token_type_hint": hint})
    return _authenticated(client, url, body)


def _form(client: Client, grant_type: str, **parameters: str) -> HttpRequest:
    body = _with(prepare_token_request(grant_type, "", **parameters), client.profile.token_extra)
    return _authenticated(client, client.connection.token_url, body)


def _with(form: str, extra: Mapping[str, str]) -> str:
    """Append *extra* to a form, or to a URL with a query. As Authlib arguments, some names would clash with its own."""
    return f"{form}&{urlencode(extra)}" if extra else form


def _authenticated(client: Client, url: str, body: str) -> HttpRequest:
    """Add the client's authentication to a form."""
    identifier, secret = client.connection.client_id, client.secret.reveal()
    if client.auth is ClientAuth.PRIVATE_KEY_JWT:
        assertion = client_assertion(client.connection, client.secret, now=client.now, jti=client.jti)
        proof = {"client_id": identifier, "client_assertion_type": CLIENT_ASSERTION, "client_assertion": assertion}
        return HttpRequest(method="POST", url=url, headers=_FORM, body=f"{body}&{urlencode(proof)}".encode())
    if client.auth is ClientAuth.BASIC:
        # RFC 6749 §2.3.1 wants both form-urlencoded first, which Authlib omits.
        identifier, secret = quote(identifier, safe=""), quote(secret, safe="")
    auth: Any = AuthlibClientAuth(identifier, secret, str(client.auth))
    url, headers, signed = auth.prepare("POST", url, dict(_FORM), body)
    return HttpRequest(method="POST", url=url, headers=_text(headers), body=signed.encode())


def _text(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
