"""Atlassian Cloud by OAuth 2.0 (3LO): refresh tokens rotate, expire when idle, and expire after a year."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from identity.http.client import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import ClientAuth, ExternalIdentity, Profile, WhoAmI
from identity.providers.sources import heard, read
from identity.secret import Secret


def _ask_user(connection: ProviderConnection, token: Secret) -> HttpRequest:
    """Return the request, which needs the scope `read:me`."""
    headers = {"authorization": f"Bearer {token.reveal()}", "accept": "application/json"}
    return HttpRequest(method="GET", url=f"{connection.api_url.rstrip('/')}/me", headers=headers)


def _read_user(_connection: ProviderConnection, document: Any) -> ExternalIdentity | None:
    match document:
        case {"account_id": str(account)}:
            name = document.get("nickname")
            return ExternalIdentity(id=account, login=name if isinstance(name, str) else None)
        case _:
            return None


_APPS = read("https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/")
_STAFF = heard("https://community.developer.atlassian.com/t/refresh-token-expire-after-36000-seconds/60806/2")

ATLASSIAN = Profile(
    name="atlassian",
    title="Atlassian",
    api_url="https://api.atlassian.com",
    authorize_url="https://auth.atlassian.com/authorize",
    token_url="https://auth.atlassian.com/oauth/token",  # noqa: S106 - an address
    client_auth=ClientAuth.POST,
    rotates=True,
    idle_limit=timedelta(days=90),
    absolute_lifetime=timedelta(days=365),
    default_lifetime=timedelta(hours=1),
    dead_codes=frozenset({"unauthorized_client"}),  # "refresh_token is invalid": the token, not the client
    authorize_extra={"audience": "api.atlassian.com", "prompt": "consent"},
    whoami=WhoAmI(request=_ask_user, read=_read_user),
    sources={
        "api_url": _APPS,
        "authorize_url": _APPS,
        "token_url": _APPS,
        "client_auth": _APPS,
        "rotates": _STAFF,
        "idle_limit": _STAFF,
        "absolute_lifetime": _STAFF,
        "default_lifetime": _STAFF,
        "dead_codes": heard("https://github.com/raycast/extensions/issues/11836"),
        "authorize_extra": _APPS,
        "whoami": heard(
            "https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/ (the User identity API)"
        ),
    },
)
