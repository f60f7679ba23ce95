"""Slack: bot and user tokens, which expire only where rotation was switched on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from identity.http import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import ClientAuth, ExternalIdentity, Profile, WhoAmI
from identity.secret import Secret


def _select(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A user's token comes inside `authed_user` when the code is exchanged, and at the top when it is refreshed."""
    person = document.get("authed_user")
    if "access_token" not in document and isinstance(person, dict) and "access_token" in person:
        return person
    return document


def _ask_user(connection: ProviderConnection, token: Secret) -> HttpRequest:
    # https://docs.slack.dev/reference/methods/auth.test
    headers = {"authorization": f"Bearer {token.reveal()}", "content-type": "application/json"}
    url = f"{connection.api_url.rstrip('/')}/auth.test"
    return HttpRequest(method="POST", url=url, headers=headers, body=b"{}")


def _read_user(_connection: ProviderConnection, document: Any) -> ExternalIdentity | None:
    match document:
        case {"ok": True, "user_id": str(user)}:
            login = document.get("user")
            return ExternalIdentity(id=user, login=login if isinstance(login, str) else None)
        case _:
            return None


# https://docs.slack.dev/authentication/using-token-rotation
SLACK = Profile(
    name="slack",
    title="Slack",
    api_url="https://slack.com/api",
    authorize_url="https://slack.com/oauth/v2/authorize",
    token_url="https://slack.com/api/oauth.v2.access",  # noqa: S106 - an address
    client_auth=ClientAuth.POST,
    rotates=True,
    default_lifetime=None,
    min_ttl=timedelta(minutes=30),
    scope_separator=",",
    scopes_parameter="user_scope",
    dead_codes=frozenset({"invalid_refresh_token", "token_revoked", "token_expired", "account_inactive"}),
    client_codes=frozenset({"invalid_client_id", "bad_client_secret", "bad_redirect_uri"}),
    transient_codes=frozenset({"ratelimited", "fatal_error", "internal_error", "service_unavailable"}),
    select=_select,
    whoami=WhoAmI(request=_ask_user, read=_read_user),
)
