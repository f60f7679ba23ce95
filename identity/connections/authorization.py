"""The header that presents a token or key to an upstream."""

from __future__ import annotations

from identity.connections.self_hosted import profile_for
from identity.errors import Misconfigured
from identity.model import ProviderConnection
from identity.oauth.token_types import UNSUPPORTED, may_be_shown, name_of
from identity.providers import PROFILES, profile_of
from identity.secret import Secret

KEY = "key"  # the token type of a static credential, which no answer can have: presented as the provider wants keys


def check_type(owner: ProviderConnection, token_type: str) -> None:
    """Raise Misconfigured for a token whose type must not be presented as a bearer token (RFC 6749 §7.1)."""
    if not token_type.startswith(UNSUPPORTED):
        return
    if may_be_shown(token_type, profile_for(PROFILES, owner).bearer_types):
        return
    given = name_of(token_type)
    kind, name = (f"a type that begins with {given[:11]!r}", "TYPE") if "~" in given else (f"type {given!r}", given)
    raise Misconfigured(
        f"{owner.provider} gave a token of {kind}, which may not be shown as a bearer's: let it give bearer tokens "
        f"to the client of provider connection {owner.id}; or, where its documentation says they are, "
        f"`aswhom connections set {owner.id} --config bearer_types={name}`"
    )


def authorization(owner: ProviderConnection, token: Secret, *, token_type: str) -> tuple[str, str]:
    """Return the header's name and value: `Authorization: Bearer …` (RFC 6750 §2.1), or a key as the provider wants it.

    Raises Misconfigured, as `check_type` does.
    """
    check_type(owner, token_type)
    if token_type != KEY:
        return "Authorization", f"Bearer {token.reveal()}"
    profile = profile_of(PROFILES, owner.provider)
    name = owner.config.get("key_header", profile.key_header)
    scheme = owner.config.get("key_scheme", profile.key_scheme)
    return name, f"{scheme} {token.reveal()}".lstrip()
