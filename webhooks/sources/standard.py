"""Standard Webhooks: any sender that follows the specification, symmetric (v1) or asymmetric (v1a).

Id and time are signed with the body, so the id by itself identifies repeats. A sender that rotates its key sends one
signature per key; a single match is enough. Workflows listen by the body's `type`; a body without one is `untyped`.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from identity.secret import Secret
from webhooks.sources.document import JSON, Malformed, from_json
from webhooks.sources.freshness import stale
from webhooks.sources.listening import event_of, listened_as, only
from webhooks.sources.reading import Fault, Reading, Received, Refusal, Source, unreadable
from webhooks.sources.signature import in_base64, mac_by_any

TOLERANCE = timedelta(minutes=5)  # the reference libraries' tolerance
SYMMETRIC, ASYMMETRIC = "whsec_", "whpk_"

_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_MOST_SIGNATURES = 10


def read(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], now: datetime, *, sender: str = ""
) -> Reading:
    """Verify and read a delivery: signed by a key of the connection, and recently."""
    id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    message = f"{id}.{stamp}.".encode("utf-8", "replace") + body
    signatures = headers.get("webhook-signature", "").split(" ")[:_MOST_SIGNATURES]
    if not re.fullmatch("[0-9]{1,12}", stamp) or not _signed(secrets, message, signatures):
        return Refusal(
            fault=Fault.SIGNATURE,
            detail="webhook-id, webhook-timestamp or webhook-signature is missing, or no signature (v1, v1a) is that "
            "of this id, time and body by any live key of the connection. Compare the endpoint's secret with ours.",
        )
    if refusal := stale(now, int(stamp), TOLERANCE):
        return refusal
    if not _KEY.fullmatch(id):
        return unreadable("webhook-id is not of that form")
    try:
        document = from_json(body)
        event = event_of(document, "type")
    except Malformed as error:
        return unreadable(str(error))
    return replace(_received(event, id, document), sender=sender)


def _received(event: str, id: str, document: Mapping[str, Any]) -> Received:
    return Received(
        event=event,
        delivery_id=id,
        installation=None,
        document=document,
        dedupe_by_body=False,  # the id is signed
    )


def prohibits(secret: Secret) -> str | None:
    """Return why *secret* is not a key of Standard Webhooks; None if it is one."""
    text = secret.reveal()
    if text.startswith(ASYMMETRIC):
        fits = len(_decoded(text.removeprefix(ASYMMETRIC))) == 32
        return None if fits else "after whpk_ come the 32 bytes of an Ed25519 public key in base64"
    fits = text.startswith(SYMMETRIC) and 24 <= len(_decoded(text.removeprefix(SYMMETRIC))) <= 64
    return None if fits else "a key is whsec_ and 24 to 64 bytes in base64, or whpk_ and an Ed25519 public key"


def configured(config: Mapping[str, str]) -> Source:
    """Return the source with the sender name from a connection's configuration. Raises Misconfigured."""
    only(config, "sender")
    return replace(SOURCE, read=partial(read, sender=listened_as(config)))


def _signed(secrets: Sequence[Secret], message: bytes, signatures: Sequence[str]) -> bool:
    keys = [secret.reveal() for secret in secrets]
    shared = [_decoded(key.removeprefix(SYMMETRIC)) for key in keys if not key.startswith(ASYMMETRIC)]
    public = [_decoded(key.removeprefix(ASYMMETRIC)) for key in keys if key.startswith(ASYMMETRIC)]
    macs = [one.removeprefix("v1,") for one in signatures if one.startswith("v1,")]
    by_public = [_decoded(one.removeprefix("v1a,")) for one in signatures if one.startswith("v1a,")]
    shared_fits = mac_by_any([key for key in shared if key], message, macs, written=in_base64)
    return shared_fits or any(_verifies(key, one, message) for key in public for one in by_public)


def _verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    if len(key) != 32 or len(signature) != 64:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _decoded(text: str) -> bytes:
    """Return the bytes if *text* is canonical base64, otherwise b""."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return found if in_base64(found) == text else b""


def reread(event: str, id: str, body: bytes) -> Received:
    """Read a stored delivery anew. Raises Malformed."""
    return _received(event, id, from_json(body))


SOURCE = Source(
    name="standard",
    content_types=frozenset({JSON}),
    read=read,
    reread=reread,
    configured=configured,
    prohibits=prohibits,
)
