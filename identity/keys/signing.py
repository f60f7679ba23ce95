"""Signatures over JSON documents: Ed25519 over the canonical form, so that a receipt can be checked elsewhere."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of a JSON document, for signing and chaining: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Signer:
    """Signs documents with one private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def from_seed(cls, seed: bytes) -> Signer:
        """Make a signer from 32 random bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, document: Mapping[str, Any]) -> str:
        """Return the signature in URL-safe base64."""
        return urlsafe_b64encode(self._key.sign(canonical(document))).decode()

    def public_key(self) -> Ed25519PublicKey:
        """Return the key that verifies these signatures."""
        return self._key.public_key()

    def public_pem(self) -> str:
        """Return the public key in PEM, for others to verify signatures."""
        form, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(form, kind).decode()

    def verifies(self, document: Mapping[str, Any], signature: str) -> bool:
        """True if *signature* is this key's over *document*."""
        return verifies(self._key.public_key(), document, signature)


def verifies(key: Ed25519PublicKey, document: Mapping[str, Any], signature: str) -> bool:
    """True if *signature* is *key*'s over *document*."""
    try:
        key.verify(urlsafe_b64decode(signature), canonical(document))
    except (InvalidSignature, ValueError):
        return False
    return True
