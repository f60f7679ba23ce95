"""Fingerprints of credentials for logs."""

import hashlib


def fingerprint(credential: str) -> str:
    """Return the SHA-256 in hex, which identifies a credential but cannot be presented in its place."""
    return hashlib.sha256(credential.encode()).hexdigest()
