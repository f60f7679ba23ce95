"""Stripe: restricted keys, each with permissions of its own, that live until they are rolled."""

from __future__ import annotations

from identity.providers.profile import ClientAuth, Profile

# https://docs.stripe.com/keys#limit-access: nobody consents, an admin pastes a restricted key.
STRIPE = Profile(
    name="stripe",
    api_url="https://api.stripe.com",
    authorize_url="",
    token_url="",
    client_auth=ClientAuth.BASIC,
    rotates=False,
    default_lifetime=None,
    implies={"subscriptions:write": frozenset({"subscriptions:read"})},
)
