"""Zendesk: each help desk has its own subdomain; an admin may make OAuth tokens for an application."""

from __future__ import annotations

from datetime import timedelta

from identity.providers.profile import ClientAuth, Profile
from identity.providers.sources import assumed, heard

_OWN = assumed("on the help desk's own subdomain: must be given")
_REFRESH = heard("https://developer.zendesk.com/api-reference/ticketing/oauth/grant_type_tokens/")

ZENDESK = Profile(
    name="zendesk",
    title="Zendesk",
    api_url="",
    authorize_url="",
    token_url="",
    client_auth=ClientAuth.POST,
    rotates=True,
    refresh_kills_access=True,
    default_lifetime=timedelta(minutes=30),
    sources={
        "api_url": _OWN,
        "authorize_url": _OWN,
        "token_url": _OWN,
        "client_auth": _REFRESH,
        "rotates": _REFRESH,
        "refresh_kills_access": _REFRESH,
        "default_lifetime": _REFRESH,
    },
)
