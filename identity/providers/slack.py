"""Slack: bot and user tokens, which expire only if rotation is switched on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from identity.http.client import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import ClientAuth, ExternalIdentity, Profile, Reach, Revocation, RevokedToken, WhoAmI
from identity.providers.sources import heard, read
from identity.secret import Secret


def _select(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Select a user's token: inside `authed_user` after a code exchange, at the top level after a refresh."""
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
            named = (document.get("team_id"), document.get("enterprise_id"))
            places = frozenset(place for place in named if isinstance(place, str))
            return ExternalIdentity(id=user, login=login if isinstance(login, str) else None, places=places)
        case _:
            return None


def _revoke(ended: RevokedToken) -> HttpRequest:
    """Return the request by which a token revokes itself. After a bot token's, the app stays installed."""
    headers = {
        "authorization": f"Bearer {ended.token.reveal()}",
        "content-type": "application/x-www-form-urlencoded",
    }
    return HttpRequest(method="POST", url=f"{ended.connection.api_url.rstrip('/')}/auth.revoke", headers=headers)


_ROTATION = read("https://docs.slack.dev/authentication/using-token-rotation")
_ACCESS = read("https://docs.slack.dev/reference/methods/oauth.v2.access")
_REVOKING = read("https://docs.slack.dev/reference/methods/auth.revoke")

_FAULTS = frozenset({"ratelimited", "fatal_error", "internal_error", "request_timeout", "service_unavailable"})
_MOVING = frozenset({"org_login_required", "team_added_to_org"})  # while the workspace joins an organization: try later

SLACK = Profile(
    name="slack",
    title="Slack",
    api_url="https://slack.com/api",
    authorize_url="https://slack.com/oauth/v2/authorize",
    token_url="https://slack.com/api/oauth.v2.access",  # noqa: S106 - an address
    replies_at="https://hooks.slack.com",
    client_auth=ClientAuth.POST,
    rotates=True,
    # Without rotation an answer names no lifetime: the token does not expire.
    default_lifetime=None,
    min_ttl=timedelta(minutes=30),
    scope_separator=",",
    scopes_parameter="user_scope",
    dead_codes=frozenset({"invalid_refresh_token", "token_revoked", "token_expired", "account_inactive"}),
    spent_codes=frozenset({"invalid_code", "code_already_used"}),
    client_codes=frozenset({"invalid_client_id", "bad_client_secret", "bad_redirect_uri"}),
    secret_codes=frozenset({"bad_client_secret"}),
    transient_codes=_FAULTS | _MOVING,
    bearer_types=frozenset({"bot", "user"}),
    select=_select,
    whoami=WhoAmI(request=_ask_user, read=_read_user),
    revocation=Revocation(
        reach=Reach.TOKEN,
        presents="access_token",
        gone_codes=frozenset({"invalid_auth", "token_revoked", "token_expired", "account_inactive"}),
    ),
    revoke=_revoke,
    sources={
        "api_url": read("https://docs.slack.dev/apis/web-api/"),
        "replies_at": heard("https://docs.slack.dev/interactivity/handling-user-interaction"),
        "authorize_url": heard("https://docs.slack.dev/authentication/installing-with-oauth"),
        "token_url": _ACCESS,
        "client_auth": _ACCESS,
        "rotates": _ROTATION,
        "min_ttl": heard("https://github.com/slackapi/python-slack-sdk refreshes 120 minutes early; ours is smaller"),
        "scope_separator": heard("https://docs.slack.dev/authentication/installing-with-oauth"),
        "scopes_parameter": heard("https://docs.slack.dev/authentication/installing-with-oauth"),
        "dead_codes": heard("https://docs.slack.dev/reference/methods/oauth.v2.access (its list of errors)"),
        "spent_codes": heard("https://docs.slack.dev/reference/methods/oauth.v2.access (its list of errors)"),
        "client_codes": heard("https://docs.slack.dev/reference/methods/oauth.v2.access (its list of errors)"),
        "secret_codes": heard("https://docs.slack.dev/reference/methods/oauth.v2.access (its list of errors)"),
        "transient_codes": heard("https://docs.slack.dev/reference/methods/oauth.v2.access (its list of errors)"),
        "bearer_types": _ACCESS,
        "select": _ACCESS,
        "whoami": read("https://docs.slack.dev/reference/methods/auth.test"),
        "revocation": _REVOKING,
        "revoke": _REVOKING,
    },
)
