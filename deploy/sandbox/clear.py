"""Requests between processes of one machine, in the clear."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

# No server of this machine needs a certificate, and to read the list of the world's authorities takes 40 ms a client.
_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client(**options: Any) -> httpx.Client:
    """A client that knows no authority and no proxy; *options* are httpx's own."""
    return httpx.Client(trust_env=False, verify=_TRUSTS_NOBODY, **options)
