"""Linear's webhooks.

The signature covers the raw body, and the body holds the time at which it was sent. Linear's own SDK checks that time
only if it is present; here it is required. The delivery id is an unsigned header, so bodies are deduplicated too.

Linear retries after a minute, an hour and six hours, with the same bytes: the one-minute tolerance of its SDK would
refuse every retry, and an outage would lose everything sent meanwhile. A body may therefore be late, but by less than
the deduplication window (`identity.connections.lateness`), which catches replays. It may be ahead of our clock by a
minute. A revocation is accepted however late: its time says which consents it can affect.
https://linear.app/developers/webhooks
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from identity.connections.lateness import TRIES_FOR, allowed_lateness
from identity.errors import BadInput, Misconfigured
from identity.secret import Secret
from webhooks.sources import linear_signals
from webhooks.sources.document import JSON, Malformed, from_json
from webhooks.sources.freshness import stale
from webhooks.sources.reading import Fault, Reading, Received, Refusal, Source, unreadable
from webhooks.sources.signature import signed_by_any

TOLERANCE = timedelta(seconds=60)

_TYPE = re.compile(r"[A-Za-z0-9_]{1,100}")
_KEY = re.compile(r"[A-Za-z0-9-]{1,200}")


def read(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[Secret],
    now: datetime,
    *,
    late: timedelta = TRIES_FOR["linear"],
) -> Reading:
    """Verify and read a delivery, refused if older than *late* unless it withdraws something."""
    if not signed_by_any(secrets, body, headers.get("linear-signature", "")):
        return Refusal(
            fault=Fault.SIGNATURE,
            detail="Linear-Signature is missing or is not that of this body by any live secret of the connection. "
            "Compare the webhook's signing secret with the connection's.",
        )
    delivery = headers.get("linear-delivery", "")
    if not _KEY.fullmatch(delivery):
        return Refusal(fault=Fault.MALFORMED, detail="Linear-Delivery is missing or not of Linear's form.")
    try:
        document = from_json(body)
        event, sent_at = _event(document), _sent_at(document)
    except Malformed as error:
        return unreadable(str(error))
    received = _received(event, delivery, document)
    refusal = stale(now, sent_at.timestamp(), TOLERANCE, late=late)
    if refusal is not None and (received.signal is None or sent_at > now):
        return refusal
    return received


def _received(event: str, delivery: str, document: dict[str, Any]) -> Received:
    signal, unrecognised = linear_signals.signal(event, document)
    return Received(
        event=event,
        delivery_id=delivery,
        installation=_organization(document),
        document=document,
        dedupe_by_body=signal is None,
        signal=signal,
        unrecognised=unrecognised,
    )


def _event(document: Mapping[str, Any]) -> str:
    """Return the body's type, which is signed; the Linear-Event header is not."""
    event = document.get("type")
    if not isinstance(event, str) or not _TYPE.fullmatch(event):
        raise Malformed("the body has no type")
    return event


def _sent_at(document: Mapping[str, Any]) -> datetime:
    milliseconds = document.get("webhookTimestamp")
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float) or not 0 < milliseconds < 1 << 45:
        raise Malformed("the body has no webhookTimestamp, so nothing says that it is not a replay")
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _organization(document: Mapping[str, Any]) -> str | None:
    organization = document.get("organizationId")
    return organization if isinstance(organization, str) and _KEY.fullmatch(organization) else None


def reread(event: str, delivery: str, body: bytes) -> Received:
    """Read a stored delivery anew. Raises Malformed."""
    return _received(event, delivery, from_json(body))


def configured(config: Mapping[str, str]) -> Source:
    """Return the source with the lateness that a connection's configuration allows. Raises Misconfigured."""
    try:
        late = allowed_lateness("linear", config)
    except BadInput as fault:
        raise Misconfigured(str(fault)) from None
    return replace(SOURCE, read=partial(read, late=late))


SOURCE = Source(name="linear", content_types=frozenset({JSON}), read=read, reread=reread, configured=configured)
