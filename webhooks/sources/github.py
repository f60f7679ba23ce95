"""GitHub's webhooks.

The signature covers only the raw body. The event name, the delivery id and the content type are headers, which anyone
with a signed body can change. Deliveries are therefore deduplicated by body too, the body itself decides between JSON
and form, and a revocation is accepted only from a body of the shape that GitHub publishes for it.
https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from identity.secret import Secret
from webhooks.sources import github_signals
from webhooks.sources.document import FORM, JSON, Malformed, check_content_type, from_form, from_json, is_form
from webhooks.sources.reading import Fault, Reading, Received, Refusal, Source, unreadable
from webhooks.sources.signature import signed_by_any

_EVENT = re.compile(r"[a-z0-9_]{1,100}")
_FIELDS = ("payload",)  # the first fields of its forms
_DELIVERY = re.compile(r"[A-Za-z0-9-]{1,200}")

_NOTES = {
    ("ping", None): "a ping: the webhook is set up, its signature is right",
    ("installation", "created"): "installed: connect it here with `aswhom accounts add-installation`",
}


def read(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], _: datetime) -> Reading:
    """Verify and read a delivery. The time is unused: GitHub signs none."""
    scheme, equals, signature = headers.get("x-hub-signature-256", "").partition("=")
    if scheme + equals != "sha256=" or not signed_by_any(secrets, body, signature):
        return Refusal(
            fault=Fault.SIGNATURE,
            detail="X-Hub-Signature-256 is missing or is not that of this body by any live secret of the connection; "
            "X-Hub-Signature (SHA-1) is not accepted. Compare the webhook's secret with the connection's.",
        )
    event, delivery = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
    if not _EVENT.fullmatch(event) or not _DELIVERY.fullmatch(delivery):
        return Refusal(
            fault=Fault.MALFORMED, detail="X-GitHub-Event or X-GitHub-Delivery is missing or not of GitHub's form."
        )
    try:
        check_content_type(headers.get("content-type", ""), form=is_form(body, _FIELDS))
        document = _document(body)
    except Malformed as error:
        return unreadable(str(error))
    return _received(event, delivery, document)


def _received(event: str, delivery: str, document: dict[str, Any]) -> Received:
    action = document.get("action")
    signal, unrecognised = github_signals.signal(event, document)
    return Received(
        event=event,
        delivery_id=delivery,
        installation=github_signals.number(document.get("installation")),
        document=document,
        dedupe_by_body=signal is None,  # a person's second revocation has the same bytes as the first
        signal=signal,
        note=_NOTES.get((event, action if isinstance(action, str) else None), ""),
        unrecognised=unrecognised,
    )


def _document(body: bytes) -> dict[str, Any]:
    return from_json(from_form(body)["payload"] if is_form(body, _FIELDS) else body)


def reread(event: str, delivery: str, body: bytes) -> Received:
    """Read a stored delivery anew. Raises Malformed."""
    return _received(event, delivery, _document(body))


SOURCE = Source(name="github", content_types=frozenset({JSON, FORM}), read=read, reread=reread)
