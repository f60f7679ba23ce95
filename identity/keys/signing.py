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
    """The one byte form of a JSON document that is signed and chained: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Signer:
    """Signs documents with one private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def from_seed(cls, seed: bytes) -> Signer:
        """From 32 random bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, document: Mapping[str, Any]) -> str:
        """The signature in URL-safe base64."""
        return urlsafe_b64encode(self._key.sign(canonical(document))).decode()

    def public_key(self) -> Ed25519PublicKey:
        """The key that checks what this one signs."""
        return self._key.public_key()

    def public_pem(self) -> str:
        """The public key, for whoever wants to check a signature."""
        form, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(form, kind).decode()

    def verifies(self, document: Mapping[str, Any], signature: str) -> bool:
        """Whether *signature* is this key's over *document*."""
        return verifies(self._key.public_key(), document, signature)


def verifies(key: Ed25519PublicKey, document: Mapping[str, Any], signature: str) -> bool:
    """Whether *signature* is *key*'s over *document*."""
    try:
        key.verify(urlsafe_b64decode(signature), canonical(document))
    except (InvalidSignature, ValueError):
        return False
    return True
