"""Stripe: restricted keys, each with its own permissions, valid until they are rolled."""

from __future__ import annotations

from identity.providers.profile import ClientAuth, Profile
from identity.providers.sources import assumed, heard

_CONNECT = heard("https://docs.stripe.com/connect/oauth-reference")

STRIPE = Profile(
    name="stripe",
    title="Stripe",
    api_url="https://api.stripe.com",
    authorize_url="https://connect.stripe.com/oauth/authorize",
    token_url="https://connect.stripe.com/oauth/token",  # noqa: S106 - an address
    client_auth=ClientAuth.POST,
    rotates=True,
    implies={"subscriptions:write": frozenset({"subscriptions:read"})},
    sources={
        "api_url": heard("https://docs.stripe.com/api"),
        "authorize_url": _CONNECT,
        "token_url": _CONNECT,
        "client_auth": _CONNECT,
        "rotates": assumed("restricted keys are not renewed; for Connect tokens, rotating is cautious"),
        "implies": heard("https://docs.stripe.com/keys/restricted-api-keys (write includes read)"),
    },
)
