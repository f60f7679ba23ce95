"""The hands of senders that have no headers of their own: Standard Webhooks, and senders described by data."""

from __future__ import annotations

import base64
import hmac
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

from tests.webhooks.parts import NOW, SECRET

STAMP = str(int(NOW.timestamp()))

KEY = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 24).decode()


def _public(private: Ed25519PrivateKey) -> str:
    return "whpk_" + base64.b64encode(private.public_key().public_bytes_raw()).decode()


_PRIVATE = {_public(key): key for key in (Ed25519PrivateKey.from_private_bytes(seed * 32) for seed in (b"p", b"q"))}
PUBLIC, OTHER_PUBLIC = _PRIVATE

#: Descriptions of senders: one that signs all there is, one that signs the body alone, and one with all in one header.
TIMED = {
    "signature_header": "X-Signature",
    "timestamp_header": "X-Time",
    "id_header": "X-Id",
    "signed": "{id}|{timestamp}|{body}",
    "encoding": "base64",
    "algorithm": "sha512",
}
PLAIN = {"signature_header": "X-Signature", "id_header": "X-Id"}
STRIPE = {
    "signature_header": "Stripe-Signature",
    "signature_field": "v1",
    "timestamp_field": "t",
    "signed": "{timestamp}.{body}",
    "id_path": "id",
}


def by_shared(body: bytes, key: str = KEY, *, id: str = "msg_1", at: datetime = NOW) -> dict[str, str]:
    """The headers of Standard Webhooks that the reference library makes."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(key).sign(id, at, body.decode()),
    }


def by_private(body: bytes, public: str = PUBLIC, *, id: str = "msg_1", stamp: str = STAMP) -> dict[str, str]:
    """The same, signed by the private key of *public*."""
    message = f"{id}.{stamp}.".encode("utf-8", "replace") + body
    signature = base64.b64encode(_PRIVATE[public].sign(message)).decode()
    return {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": f"v1a,{signature}"}


def timed(body: bytes, secret: str = SECRET, *, id: str = "d-1", stamp: str = STAMP) -> dict[str, str]:
    """The headers of a sender as `TIMED` describes it."""
    message = f"{id}|{stamp}|".encode("utf-8", "replace") + body
    signature = base64.b64encode(hmac.digest(secret.encode(), message, "sha512")).decode()
    return {"X-Signature": signature, "X-Time": stamp, "X-Id": id}


def plain(body: bytes, secret: str = SECRET, *, id: str = "d-1") -> dict[str, str]:
    """The headers of a sender as `PLAIN` describes it."""
    return {"X-Signature": hmac.digest(secret.encode(), body, "sha256").hex(), "X-Id": id}


def stripe(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """The header of a sender as `STRIPE` describes it."""
    signature = hmac.digest(secret.encode(), STAMP.encode() + b"." + body, "sha256").hex()
    return {"Stripe-Signature": f"t={STAMP},v1={signature}"}
