"""Provider profiles as data: one frozen row per file, listed here."""

from __future__ import annotations

from collections.abc import Mapping

from identity.errors import Misconfigured
from identity.providers.atlassian import ATLASSIAN
from identity.providers.github import GITHUB
from identity.providers.google import GOOGLE
from identity.providers.linear import LINEAR
from identity.providers.openid import OAUTH2, OIDC
from identity.providers.profile import Profile
from identity.providers.salesforce import SALESFORCE
from identity.providers.slack import SLACK
from identity.providers.stripe import STRIPE
from identity.providers.zendesk import ZENDESK

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (ATLASSIAN, GITHUB, GOOGLE, LINEAR, OAUTH2, OIDC, SALESFORCE, SLACK, STRIPE, ZENDESK)
}


def profile_of(profiles: Mapping[str, Profile], provider: str) -> Profile:
    """Return the profile of a provider. Raises Misconfigured."""
    if (profile := profiles.get(provider)) is None:
        known = ", ".join(sorted(profiles))
        raise Misconfigured(f"no provider is named {provider!r}: known are {known}")
    return profile
