"""GitHub Apps: user tokens that rotate and installation tokens that are minted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from identity.http import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import ClientAuth, ExternalIdentity, Profile, WhoAmI
from identity.secret import Secret


def _ask_user(connection: ProviderConnection, token: Secret) -> HttpRequest:
    # https://docs.github.com/en/rest/users/users#get-the-authenticated-user
    headers = {
        "authorization": f"Bearer {token.reveal()}",
        "accept": "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
    }
    return HttpRequest(method="GET", url=f"{connection.api_url.rstrip('/')}/user", headers=headers)


def _read_user(_connection: ProviderConnection, document: Any) -> ExternalIdentity | None:
    match document:
        case {"id": int(number), "login": str(login)}:
            return ExternalIdentity(id=str(number), login=login)
        case _:
            return None


# https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/refreshing-user-access-tokens
GITHUB = Profile(
    name="github",
    title="GitHub",
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
)
