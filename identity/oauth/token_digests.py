"""Digests by which a provider may name a refresh token without revealing it, stored beside the sealed token.

Google's `token-revoked` names one by `hash_base64_sha512_sha512` (the Base64 of SHA-512 of SHA-512) or by `prefix` (its
first 16 characters). The prefix is part of the secret, so only its digest is stored.
https://developers.google.com/identity/protocols/risc#token_identifiers
"""

from __future__ import annotations

import base64
from hashlib import sha512

from identity.secret import Secret

_PREFIX = 16  # characters


def digest_of(token: Secret) -> str:
    """Return Google's `hash_base64_sha512_sha512` of a refresh token."""
    return double(token.reveal())


def prefix_digest_of(token: Secret) -> str | None:
    """Return the digest of its first 16 characters; None where those would be the whole token."""
    text = token.reveal()
    return double(text[:_PREFIX]) if len(text) > _PREFIX else None


def double(text: str) -> str:
    """Return Base64(SHA-512(SHA-512(*text*)))."""
    return base64.b64encode(sha512(sha512(text.encode()).digest()).digest()).decode()
