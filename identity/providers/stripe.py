"""Stripe: restricted keys, each with permissions of its own, that live until they are rolled."""

from __future__ import annotations

from identity.providers.profile import ClientAuth, Profile
from identity.providers.sources import assumed, heard

_CONSENT = assumed("nobody consents here: an admin gives a restricted key")

STRIPE = Profile(
    name="stripe",
    title="Stripe",
    api_url="https://api.stripe.com",
    authorize_url="",
    token_url="",
    client_auth=ClientAuth.POST,
    rotates=True,
    implies={"subscriptions:write": frozenset({"subscriptions:read"})},
    sources={
        "api_url": heard("https://docs.stripe.com/api"),
        "authorize_url": _CONSENT,
        "token_url": _CONSENT,
        "client_auth": _CONSENT,
        "rotates": _CONSENT,
        "implies": heard("https://docs.stripe.com/keys/restricted-api-keys (write includes read)"),
    },
)
