"""GitHub Apps: user tokens that rotate and installation tokens that are minted."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from identity.http import Answer, HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import ClientAuth, ExternalIdentity, Liveness, Profile, WhoAmI
from identity.secret import Secret


def _ask_user(connection: ProviderConnection, token: Secret) -> HttpRequest:
    # https://docs.github.com/en/rest/users/users#get-the-authenticated-user
    headers = {
        "authorization": f"Bearer {token.reveal()}",
        "accept": "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
    }
    return HttpRequest(method="GET", url=f"{connection.api_url.rstrip('/')}/user", headers=headers)


def _read_user(document: Any) -> ExternalIdentity | None:
    match document:
        case {"id": int(number), "login": str(login)}:
            return ExternalIdentity(id=str(number), login=login)
        case _:
            return None


def _ask_alive(connection: ProviderConnection, secret: Secret, token: Secret) -> HttpRequest:
    # https://docs.github.com/en/rest/apps/oauth-applications#check-a-token
    basic = base64.b64encode(f"{connection.client_id}:{secret.reveal()}".encode()).decode()
    headers = {
        "authorization": f"Basic {basic}",
        "accept": "application/vnd.github+json",
        "content-type": "application/json",
        "x-github-api-version": "2022-11-28",
    }
    url = f"{connection.api_url.rstrip('/')}/applications/{quote(connection.client_id, safe='')}/token"
    body = json.dumps({"access_token": token.reveal()}).encode()
    return HttpRequest(method="POST", url=url, headers=headers, body=body)


def _read_alive(answer: Answer) -> bool | None:
    return {200: True, 404: False}.get(answer.status)


# https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/refreshing-user-access-tokens
GITHUB = Profile(
    name="github",
    api_url="https://api.github.com",
    authorize_url="https://github.com/login/oauth/authorize",
    token_url="https://github.com/login/oauth/access_token",  # noqa: S106 - an address
    client_auth=ClientAuth.POST,
    rotates=True,
    refresh_kills_access=True,
    # 8 hours when the app lets tokens expire; an app that does not sends no refresh token and no lifetime.
    default_lifetime=None,
    min_ttl=timedelta(minutes=10),
    dead_codes=frozenset({"bad_refresh_token"}),
    client_codes=frozenset({"incorrect_client_credentials", "redirect_uri_mismatch"}),
    implies={f"{what}:write": frozenset({f"{what}:read"}) for what in ("contents", "issues", "pull_requests")},
    whoami=WhoAmI(request=_ask_user, read=_read_user),
    liveness=Liveness(request=_ask_alive, read=_read_alive),
)
