"""GitHub Apps: rotating user tokens and minted installation tokens."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from identity.http.client import Answer, HttpRequest
from identity.model import Credential, ProviderConnection
from identity.providers.pace import Pace
from identity.providers.profile import (
    ClientAuth,
    ExternalIdentity,
    Liveness,
    Profile,
    Reach,
    Renewal,
    Revocation,
    RevokedToken,
    WhoAmI,
)
from identity.providers.sources import assumed, heard, read
from identity.secret import Secret

_HEADERS = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}


def _ask_user(connection: ProviderConnection, token: Secret) -> HttpRequest:
    # https://docs.github.com/en/rest/users/users#get-the-authenticated-user
    headers = _HEADERS | {"authorization": f"Bearer {token.reveal()}"}
    return HttpRequest(method="GET", url=f"{connection.api_url.rstrip('/')}/user", headers=headers)


def _read_user(_connection: ProviderConnection, document: Any) -> ExternalIdentity | None:
    match document:
        case {"id": int(number), "login": str(login)}:
            return ExternalIdentity(id=str(number), login=login)
        case _:
            return None


def _as_client(connection: ProviderConnection, secret: Secret) -> dict[str, str]:
    proof = b64encode(f"{connection.client_id}:{secret.reveal()}".encode()).decode()
    return _HEADERS | {"authorization": f"Basic {proof}", "content-type": "application/json"}


def _ask_alive(connection: ProviderConnection, secret: Secret, token: Secret) -> HttpRequest:
    # https://docs.github.com/en/rest/apps/oauth-applications#check-a-token
    headers = _as_client(connection, secret)
    url = f"{connection.api_url.rstrip('/')}/applications/{quote(connection.client_id, safe='')}/token"
    body = json.dumps({"access_token": token.reveal()}).encode()
    return HttpRequest(method="POST", url=url, headers=headers, body=body)


def _read_alive(answer: Answer) -> bool | None:
    return {200: True, 404: False}.get(answer.status)


def _revoke(ended: RevokedToken) -> HttpRequest | None:
    """Return the request that ends the person's authorization of the app, or an installation token."""
    api = ended.connection.api_url.rstrip("/")
    if ended.credential is Credential.INSTALLATION:
        # https://docs.github.com/en/rest/apps/installations#revoke-an-installation-access-token
        headers = _HEADERS | {"authorization": f"Bearer {ended.token.reveal()}"}
        return HttpRequest(method="DELETE", url=f"{api}/installation/token", headers=headers)
    if ended.credential is not Credential.AUTHORIZATION_CODE or ended.client_secret is None:
        return None
    # https://docs.github.com/en/rest/apps/oauth-applications#delete-an-app-authorization
    headers = _as_client(ended.connection, ended.client_secret)
    body = json.dumps({"access_token": ended.token.reveal()}).encode()
    url = f"{api}/applications/{quote(ended.connection.client_id, safe='')}/grant"
    return HttpRequest(method="DELETE", url=url, headers=headers, body=body)


def _revoke_by_name(connection: ProviderConnection, tokens: Sequence[Secret]) -> HttpRequest:
    """Return an anonymous request: GitHub refuses authenticated ones."""
    # https://docs.github.com/en/rest/credentials/revoke#revoke-a-list-of-credentials
    headers = _HEADERS | {"content-type": "application/json"}
    body = json.dumps({"credentials": [token.reveal() for token in tokens]}).encode()
    return HttpRequest(
        method="POST", url=f"{connection.api_url.rstrip('/')}/credentials/revoke", headers=headers, body=body
    )


_APPS = "https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app"
_REFRESHING = read(f"{_APPS}/refreshing-user-access-tokens")
_GENERATING = read(f"{_APPS}/generating-a-user-access-token-for-a-github-app")
_ERRORS = read(
    "https://docs.github.com/en/apps/oauth-apps/maintaining-oauth-apps/troubleshooting-oauth-app-access-token-request-errors"
)
_REVOKING = read("https://docs.github.com/en/rest/apps/oauth-applications#delete-an-app-authorization")
_CREDENTIALS = "https://docs.github.com/en/rest/credentials/revoke#revoke-a-list-of-credentials"

GITHUB = Profile(
    name="github",
    title="GitHub",
    api_url="https://api.github.com",
    authorize_url="https://github.com/login/oauth/authorize",
    token_url="https://github.com/login/oauth/access_token",  # noqa: S106 - an address
    client_auth=ClientAuth.POST,
    rotates=True,
    installation_of_app=True,
    refresh_kills_access=True,
    idle_limit=timedelta(seconds=15811200),
    # 8 hours if the app lets tokens expire; otherwise GitHub sends neither refresh token nor lifetime.
    default_lifetime=None,
    min_ttl=timedelta(minutes=10),
    # "No more than 2,000 OAuth access token requests per hour". For concurrency it names only its API's limit, 100.
    token_pace=Pace(requests=2000, per=timedelta(hours=1), burst=100),
    api_pace=Pace(requests=5000, per=timedelta(hours=1), burst=100),
    dead_codes=frozenset({"bad_refresh_token"}),
    spent_codes=frozenset({"bad_verification_code"}),
    client_codes=frozenset({"incorrect_client_credentials", "redirect_uri_mismatch"}),
    secret_codes=frozenset({"incorrect_client_credentials"}),
    empty_scope_means_asked=True,  # App tokens have permissions, not scopes
    implies={f"{what}:write": frozenset({f"{what}:read"}) for what in ("contents", "issues", "pull_requests")},
    whoami=WhoAmI(request=_ask_user, read=_read_user),
    liveness=Liveness(request=_ask_alive, read=_read_alive),
    revocation=Revocation(
        reach=Reach.AUTHORIZATION,
        presents="access_token",
        # 422 is "Validation failed, or the endpoint has been spammed"; 404 is not documented.
        unclear_statuses=frozenset({404, 422}),
        by_itself=frozenset({Credential.INSTALLATION}),
    ),
    revoke=_revoke,
    renewal=Renewal(
        request=_revoke_by_name,
        taken=frozenset({202}),
        # "60 unauthenticated requests per hour and a max of 1000 tokens per API request": source `renewal` below.
        most=1000,
        pace=Pace(requests=60, per=timedelta(hours=1), burst=20),
    ),
    sources={
        "api_url": read("https://docs.github.com/en/rest/using-the-rest-api/getting-started-with-the-rest-api"),
        "authorize_url": _GENERATING,
        "token_url": _REFRESHING,
        "client_auth": _REFRESHING,
        "rotates": _REFRESHING,
        "installation_of_app": read("https://docs.github.com/en/webhooks/webhook-events-and-payloads"),
        "refresh_kills_access": _REFRESHING,
        "idle_limit": _REFRESHING,
        "min_ttl": assumed("our own margin; the old token ends at the refresh"),
        "token_pace": read(
            "https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits"
        ),
        "api_pace": assumed("an app's own requests are limited like those for one user: 5,000 an hour"),
        "dead_codes": heard("https://github.com/octokit/auth-oauth-user.js"),
        "spent_codes": _ERRORS,
        "client_codes": _ERRORS,
        "secret_codes": _ERRORS,
        "empty_scope_means_asked": _GENERATING,
        "implies": read("https://docs.github.com/en/rest/authentication/permissions-required-for-github-apps"),
        "whoami": read("https://docs.github.com/en/rest/users/users#get-the-authenticated-user"),
        "liveness": read("https://docs.github.com/en/rest/apps/oauth-applications#check-a-token"),
        "revocation": _REVOKING,
        "revoke": _REVOKING,
        "renewal": read(_CREDENTIALS),
    },
)
