"""HMAC verification of raw bytes, against every live key, in constant time."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Sequence

from identity.secret import Secret


def signed_by_any(secrets: Sequence[Secret], message: bytes, signature: str) -> bool:
    """True if *signature* (lower-case hex) is the HMAC-SHA256 of *message* by one of *secrets*."""
    return mac_by_any([secret.reveal().encode() for secret in secrets], message, [signature])


def mac_by_any(
    keys: Sequence[bytes],
    message: bytes,
    signatures: Sequence[str],
    *,
    algorithm: str = "sha256",
    written: Callable[[bytes], str] = bytes.hex,
) -> bool:
    """True if one of *signatures* is the HMAC of *message* by one of *keys*, encoded by *written*.

    The encoded texts are compared, so only the sender's own way of writing a signature is accepted.
    """
    given = [signature.encode("utf-8", "replace") for signature in signatures]  # compare_digest takes ASCII text only
    # Try all pairs, so that the time taken does not tell which one matched.
    fits = [
        hmac.compare_digest(expected, one)
        for expected in [written(hmac.digest(key, message, algorithm)).encode() for key in keys]
        for one in given
    ]
    return any(fits)


def in_base64(digest: bytes) -> str:
    """Encode with padding (RFC 4648 §4)."""
    return base64.b64encode(digest).decode()
