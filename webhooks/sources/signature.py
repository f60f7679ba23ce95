"""HMAC-SHA256 of the raw bytes, against every live secret, in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from identity.secret import Secret


def signed_by_any(secrets: Sequence[Secret], message: bytes, signature: str) -> bool:
    """Whether *signature* (lower-case hex) is that of *message* by one of *secrets*. No secret: no."""
    given = signature.encode("latin-1", "replace")  # compare_digest takes text only if it is ASCII
    # All are tried, whichever fits: the time taken does not tell which.
    fits = [
        hmac.compare_digest(hmac.digest(secret.reveal().encode(), message, "sha256").hex().encode(), given)
        for secret in secrets
    ]
    return any(fits)
