"""Token types that servers assign, and which of them may be used as bearer tokens.

RFC 6749 §7.1: a client must not use a token whose type it does not understand. It may come with a refresh token.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from typing import Any

BEARER = "bearer"
UNSUPPORTED = "unsupported "  # prefix of the stored type of an access token that is not a bearer token
_LONGEST = 20  # room left in the column


def kept_type(value: Any, bearer_types: Collection[str]) -> str:
    """Return the type to store: `bearer`, also for a missing or invalid name; others are marked unsupported."""
    if not (isinstance(value, str) and value.isascii() and value.isprintable() and value.strip()):
        return BEARER
    value = value.strip()
    return BEARER if value.lower() in {BEARER, *bearer_types} else UNSUPPORTED + _shortened(value)


def may_be_shown(token_type: str, bearer_types: Collection[str]) -> bool:
    """True if a token of that stored type is a bearer token, by the names its server is now known to use."""
    named = {(UNSUPPORTED + _shortened(one)).lower() for one in bearer_types}
    return not token_type.startswith(UNSUPPORTED) or token_type.lower() in named


def name_of(token_type: str) -> str:
    """Return the name given to an unsupported type, or its beginning."""
    return token_type.removeprefix(UNSUPPORTED)


def _shortened(value: str) -> str:
    """Shorten a long name to its beginning and a digest, so that similar names stay distinct."""
    if len(value) <= _LONGEST:
        return value
    return f"{value[:11]}~{sha256(value.lower().encode()).hexdigest()[:8]}"
