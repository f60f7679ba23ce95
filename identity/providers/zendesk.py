"""Zendesk: a subdomain of its own for each help desk, and OAuth tokens that an admin may make for an application."""

from __future__ import annotations

from datetime import timedelta

from identity.providers.profile import ClientAuth, Profile

# https://developer.zendesk.com/documentation/api-basics/authentication/oauth-vs-api-tokens/
ZENDESK = Profile(
    name="zendesk",
    api_url="",  # https://SUBDOMAIN.zendesk.com
    authorize_url="",
    token_url="",
    client_auth=ClientAuth.POST,
    rotates=True,
    # https://developer.zendesk.com/api-reference/ticketing/oauth/grant_type_tokens/: a refresh deletes both old tokens
    refresh_kills_access=True,
    default_lifetime=timedelta(minutes=30),
)
