"""Plain HTTP between processes of one machine."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

# No local server has a certificate, and loading the system's authorities would take 40 ms per client.
_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client(**options: Any) -> httpx.Client:
    """Return a client that trusts no authority and uses no proxy. *options* are httpx's."""
    return httpx.Client(trust_env=False, verify=_TRUSTS_NOBODY, **options)
