"""The header by which a token or key is shown to an upstream."""

from __future__ import annotations

from identity.model import ProviderConnection
from identity.providers import PROFILES, profile_of
from identity.secret import Secret

KEY = "key"  # the token type of a static credential: shown as the provider wants keys


def authorization(owner: ProviderConnection, token: Secret, *, token_type: str) -> tuple[str, str]:
    """The header's name and value: `Authorization: Bearer …` (RFC 6750 §2.1), or a key as the provider wants it.

    Raises Misconfigured.
    """
    if token_type != KEY:
        return "Authorization", f"Bearer {token.reveal()}"
    profile = profile_of(PROFILES, owner.provider)
    name = owner.config.get("key_header", profile.key_header)
    scheme = owner.config.get("key_scheme", profile.key_scheme)
    return name, f"{scheme} {token.reveal()}".lstrip()
