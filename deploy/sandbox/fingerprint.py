"""What a log may say of a credential."""

import hashlib


def fingerprint(credential: str) -> str:
    """SHA-256 in hex: enough to recognise a credential, useless to present it."""
    return hashlib.sha256(credential.encode()).hexdigest()
