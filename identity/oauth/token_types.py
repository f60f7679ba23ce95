"""The type that a server gives its access tokens, and which of them are bearer's.

RFC 6749 §7.1: whoever does not understand the type must not use the token. It may come with what renews it.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from typing import Any

BEARER = "bearer"
UNSUPPORTED = "unsupported "  # how the kept type begins of an access token that is no bearer's
_LONGEST = 20  # what the column holds besides


def kept_type(value: Any, bearer_types: Collection[str]) -> str:
    """`bearer`, also where the answer names none or what is no name; any other, marked: it is kept and not shown."""
    if not (isinstance(value, str) and value.isascii() and value.isprintable() and value.strip()):
        return BEARER
    value = value.strip()
    return BEARER if value.lower() in {BEARER, *bearer_types} else UNSUPPORTED + _shortened(value)


def may_be_shown(token_type: str, bearer_types: Collection[str]) -> bool:
    """Whether a token of that kept type is bearer's, by what its server is known to call them now."""
    named = {(UNSUPPORTED + _shortened(one)).lower() for one in bearer_types}
    return not token_type.startswith(UNSUPPORTED) or token_type.lower() in named


def name_of(token_type: str) -> str:
    """The name that was given to an unsupported type, or how it begins."""
    return token_type.removeprefix(UNSUPPORTED)


def _shortened(value: str) -> str:
    """A name that is too long ends in its digest, so that one that begins alike is not taken for it."""
    if len(value) <= _LONGEST:
        return value
    return f"{value[:11]}~{sha256(value.lower().encode()).hexdigest()[:8]}"
