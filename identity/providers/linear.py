"""Linear: rotating user tokens, client credentials that act as the app, and personal keys."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from identity.http.client import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import ClientAuth, ExternalIdentity, Profile, Reach, Revocation, WhoAmI
from identity.providers.sources import assumed, heard, read
from identity.secret import Secret

_VIEWER = json.dumps({"query": "query Viewer { viewer { id displayName organization { id } } }"}).encode()


def _ask_viewer(connection: ProviderConnection, token: Secret) -> HttpRequest:
    headers = {"authorization": f"Bearer {token.reveal()}", "content-type": "application/json"}
    url = f"{connection.api_url.rstrip('/')}/graphql"
    return HttpRequest(method="POST", url=url, headers=headers, body=_VIEWER)


def _read_viewer(_connection: ProviderConnection, document: Any) -> ExternalIdentity | None:
    match document:
        case {"data": {"viewer": {"id": str(viewer), "displayName": str(name)}}}:
            return ExternalIdentity(id=viewer, login=name, places=_places(document["data"]["viewer"]))
        case _:
            return None


def _places(viewer: dict[str, Any]) -> frozenset[str]:
    match viewer:
        case {"organization": {"id": str(organization)}}:
            return frozenset({organization})
        case _:
            return frozenset()


_OAUTH = read("https://linear.app/developers/oauth-2-0-authentication")
_GRAPHQL = read("https://github.com/linear/linear/blob/master/packages/sdk/src/schema.graphql")

LINEAR = Profile(
    name="linear",
    title="Linear",
    api_url="https://api.linear.app",
    authorize_url="https://linear.app/oauth/authorize",
    token_url="https://api.linear.app/oauth/token",  # noqa: S106 - an address
    revocation_url="https://api.linear.app/oauth/revoke",
    client_auth=ClientAuth.POST,
    rotates=True,
    default_lifetime=timedelta(seconds=86399),
    min_ttl=timedelta(minutes=30),
    scope_separator=",",
    transient_codes=frozenset({"RATELIMITED", "ratelimited"}),
    client_credentials_extra={"actor": "app"},
    # `write` includes the two finer scopes.
    implies={"write": frozenset({"issues:create", "comments:create"})},
    whoami=WhoAmI(request=_ask_viewer, read=_read_viewer),
    key_scheme="",
    revocation=Revocation(
        reach=Reach.AUTHORIZATION,
        presents="access_token",
        gone_codes=frozenset({"invalid_token"}),
    ),
    sources={
        "api_url": _OAUTH,
        "authorize_url": _OAUTH,
        "token_url": _OAUTH,
        "revocation_url": heard("https://linear.app/developers/oauth-2-0-authentication#revoke-an-access-token"),
        "client_auth": _OAUTH,
        "rotates": _OAUTH,
        "default_lifetime": heard("https://linear.app/developers/oauth-2-0-authentication"),
        "min_ttl": assumed("our own margin, small compared to a lifetime of 24 hours"),
        "scope_separator": _OAUTH,
        "transient_codes": heard("https://linear.app/developers/rate-limiting (RATELIMITED comes with status 400)"),
        "client_credentials_extra": heard("https://linear.app/developers/agents"),
        "implies": _OAUTH,
        "whoami": _GRAPHQL,
        "key_scheme": heard("https://linear.app/developers/graphql#personal-api-keys"),
        "revocation": assumed("its extent is not documented, so it is taken to end everything"),
    },
)
