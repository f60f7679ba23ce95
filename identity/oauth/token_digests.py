"""Digests by which a provider may name a refresh token without saying it, kept beside the sealed token.

Google's `token-revoked` names one by `hash_base64_sha512_sha512` (the Base64 of SHA-512 of SHA-512) or by `prefix` (its
first 16 characters). The prefix is a part of the secret, so what is stored of it is a digest, too.
https://developers.google.com/identity/protocols/risc#token_identifiers
"""

from __future__ import annotations

import base64
from hashlib import sha512

from identity.secret import Secret

_PREFIX = 16  # characters


def digest_of(token: Secret) -> str:
    """Google's `hash_base64_sha512_sha512` of a refresh token."""
    return double(token.reveal())


def prefix_digest_of(token: Secret) -> str | None:
    """The digest of its first 16 characters; None where that would be the whole token."""
    text = token.reveal()
    return double(text[:_PREFIX]) if len(text) > _PREFIX else None


def double(text: str) -> str:
    """Base64(SHA-512(SHA-512(*text*)))."""
    return base64.b64encode(sha512(sha512(text.encode()).digest()).digest()).decode()
