"""Salesforce: each organization has a domain of its own, and its answers name no lifetime."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from identity.http import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import ClientAuth, ExternalIdentity, Profile, WhoAmI
from identity.secret import Secret


def _ask_user(connection: ProviderConnection, token: Secret) -> HttpRequest:
    # https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_using_userinfo_endpoint.htm
    headers = {"authorization": f"Bearer {token.reveal()}"}
    return HttpRequest(method="GET", url=f"{connection.api_url.rstrip('/')}/services/oauth2/userinfo", headers=headers)


def _read_user(document: Any) -> ExternalIdentity | None:
    """A user's id is unique within an organization only."""
    match document:
        case {"user_id": str(user), "organization_id": str(organization)}:
            login = document.get("preferred_username")
            return ExternalIdentity(id=f"{organization}/{user}", login=login if isinstance(login, str) else None)
        case _:
            return None


# https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_web_server_flow.htm
SALESFORCE = Profile(
    name="salesforce",
    api_url="",  # the organization's My Domain
    authorize_url="https://login.salesforce.com/services/oauth2/authorize",
    token_url="https://login.salesforce.com/services/oauth2/token",  # noqa: S106 - an address
    client_auth=ClientAuth.POST,
    rotates=True,  # a choice of each app; this is the cautious reading
    # The organization's session timeout, which no answer names. A session that ends earlier shows as a 401.
    default_lifetime=timedelta(hours=2),
    client_codes=frozenset({"invalid_client_id", "inactive_org"}),
    dead_codes=frozenset({"inactive_user"}),
    transient_codes=frozenset({"rate_limit_exceeded"}),
    whoami=WhoAmI(request=_ask_user, read=_read_user),
)
