"""Salesforce: each organization has its own domain, and token answers name no lifetime."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from identity.http.client import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import Assertion, ClientAuth, ExternalIdentity, Profile, Reach, Revocation, WhoAmI
from identity.providers.sources import assumed, heard
from identity.secret import Secret

_SHORT = re.compile(r"[A-Za-z0-9]{15}")
_CHECKSUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def whole_id(id: str) -> str:
    """Return an id with 18 characters, as Salesforce's APIs give it; people and reports copy it with 15.

    Each of the last three encodes which of five characters are capitals, which makes the id case-insensitive.
    Salesforce's own formula for it is CASESAFEID.
    """
    if not _SHORT.fullmatch(id):
        return id
    fives = (id[0:5], id[5:10], id[10:15])
    capitals = (sum(1 << place for place, letter in enumerate(five) if "A" <= letter <= "Z") for five in fives)
    return id + "".join(_CHECKSUM[which] for which in capitals)


def whole_person(external_id: str) -> str:
    """Return `<organization>/<user>` with full ids, as a completed connect stores it in an alias."""
    return "/".join(whole_id(part) for part in external_id.split("/"))


def _ask_user(connection: ProviderConnection, token: Secret) -> HttpRequest:
    headers = {"authorization": f"Bearer {token.reveal()}"}
    return HttpRequest(method="GET", url=f"{connection.api_url.rstrip('/')}/services/oauth2/userinfo", headers=headers)


def _read_user(_connection: ProviderConnection, document: Any) -> ExternalIdentity | None:
    """Return the user, qualified by the organization: user ids are unique only within one."""
    match document:
        case {"user_id": str(user), "organization_id": str(organization)}:
            login = document.get("preferred_username")
            return ExternalIdentity(id=f"{organization}/{user}", login=login if isinstance(login, str) else None)
        case _:
            return None


_WEB = heard("https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_web_server_flow.htm")
_JWT = heard("https://github.com/simple-salesforce/simple-salesforce/blob/master/simple_salesforce/login.py")
_ERRORS = heard("https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_flow_errors.htm")

SALESFORCE = Profile(
    name="salesforce",
    title="Salesforce",
    api_url="",
    authorize_url="https://login.salesforce.com/services/oauth2/authorize",
    token_url="https://login.salesforce.com/services/oauth2/token",  # noqa: S106 - an address
    revocation_url="https://login.salesforce.com/services/oauth2/revoke",
    client_auth=ClientAuth.POST,
    rotates=True,
    idle_limit=timedelta(days=30),
    # The organization's session timeout, which no answer names. A session that ends earlier gives a 401.
    default_lifetime=timedelta(hours=2),
    client_codes=frozenset({"invalid_client_id", "inactive_org"}),
    dead_codes=frozenset({"inactive_user"}),
    transient_codes=frozenset({"rate_limit_exceeded"}),
    whoami=WhoAmI(request=_ask_user, read=_read_user),
    assertion=Assertion(
        audience="https://login.salesforce.com", scopes_beside=False, needs_subject=True, lifetime=timedelta(minutes=3)
    ),
    revocation=Revocation(
        reach=Reach.GRANT,
        presents="refresh_token",
        gone_codes=frozenset({"invalid_token"}),
    ),
    sources={
        "api_url": heard("https://help.salesforce.com/s/articleView?id=sf.domain_name_overview.htm"),
        "authorize_url": _WEB,
        "token_url": _WEB,
        "revocation_url": heard("https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_revoke_token.htm"),
        "client_auth": _WEB,
        "rotates": assumed("a setting of each app; rotating is the cautious assumption"),
        "idle_limit": assumed("a policy of each app; 30 days is one of its options, and refreshing early costs little"),
        "default_lifetime": assumed("a setting of each organization, two hours by default"),
        "client_codes": _ERRORS,
        "dead_codes": _ERRORS,
        "transient_codes": _ERRORS,
        "whoami": heard("https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_using_userinfo_endpoint.htm"),
        "assertion": _JWT,
        "revocation": heard("https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_revoke_token.htm"),
    },
)
