"""Linear: user tokens that rotate, and client credentials that act as the app."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from identity.http import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import ClientAuth, ExternalIdentity, Profile, WhoAmI
from identity.secret import Secret

_VIEWER = json.dumps({"query": "query Viewer { viewer { id displayName } }"}).encode()


def _ask_viewer(connection: ProviderConnection, token: Secret) -> HttpRequest:
    headers = {"authorization": f"Bearer {token.reveal()}", "content-type": "application/json"}
    url = f"{connection.api_url.rstrip('/')}/graphql"
    return HttpRequest(method="POST", url=url, headers=headers, body=_VIEWER)


def _read_viewer(_connection: ProviderConnection, document: Any) -> ExternalIdentity | None:
    match document:
        case {"data": {"viewer": {"id": str(viewer), "displayName": str(name)}}}:
            return ExternalIdentity(id=viewer, login=name)
        case _:
            return None


# https://linear.app/developers/oauth-2-0-authentication
LINEAR = Profile(
    name="linear",
    title="Linear",
    api_url="https://api.linear.app",
    authorize_url="https://linear.app/oauth/authorize",
    token_url="https://api.linear.app/oauth/token",  # noqa: S106 - an address
    client_auth=ClientAuth.POST,
    rotates=True,
    default_lifetime=timedelta(seconds=86399),
    min_ttl=timedelta(minutes=30),
    scope_separator=",",
    transient_codes=frozenset({"RATELIMITED", "ratelimited"}),
    client_credentials_extra={"actor": "app"},
    # https://linear.app/developers/oauth-2-0-authentication: `write` is the coarse one of the three
    implies={"write": frozenset({"issues:create", "comments:create"})},
    whoami=WhoAmI(request=_ask_viewer, read=_read_viewer),
)
