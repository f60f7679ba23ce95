"""Slack's requests: Events API, interactivity and commands, signed alike.

Every one that is validly signed is answered with 2xx, whoever's workspace it is: Slack turns an app's events off when
too many fail. A retry is not dropped for being one: it may be the only copy. The event id decides.
https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from identity.secret import Secret
from webhooks.sources import slack_signals
from webhooks.sources.document import Malformed, from_form, from_json
from webhooks.sources.reading import Challenge, Fault, Reading, Received, Refusal, Source
from webhooks.sources.signature import signed_by_any

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
TOLERANCE = timedelta(minutes=5)

_WORD = re.compile(r"[A-Za-z0-9_.]{1,100}")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,200}")


def read(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], now: datetime) -> Reading:
    """What Slack says, if it was Slack and not long ago."""
    stamp = headers.get("x-slack-request-timestamp", "")
    version, _, signature = headers.get("x-slack-signature", "").partition("=")
    message = b"v0:" + stamp.encode("latin-1", "replace") + b":" + body
    if version != "v0" or not re.fullmatch("[0-9]{1,12}", stamp) or not signed_by_any(secrets, message, signature):
        return Refusal(
            fault=Fault.SIGNATURE,
            detail="X-Slack-Signature or X-Slack-Request-Timestamp is missing, or the signature is not that of this "
            "body and time by any live secret of the connection. Compare the app's signing secret with ours.",
        )
    away = now.timestamp() - int(stamp)
    if abs(away) > TOLERANCE.total_seconds():
        return Refusal(
            fault=Fault.SIGNATURE,
            detail=f"The request is signed, but {abs(away):.0f} s in the {'past' if away > 0 else 'future'}, and more "
            f"than {TOLERANCE.total_seconds():.0f} s is refused as a replay. If it is new, look for clock skew here.",
        )
    try:
        return _read(headers.get("content-type", ""), body, stamp)
    except Malformed as error:
        return Refusal(fault=Fault.MALFORMED, detail=f"The signature is right, but {error}.")


def _read(content_type: str, body: bytes, stamp: str) -> Reading:
    if content_type.partition(";")[0].strip().lower() == FORM:
        fields = from_form(body)
        if "payload" not in fields:  # a command: the form is all there is
            return _interaction({**fields, "type": "slash_command"}, body, stamp)
        return _interaction(from_json(fields["payload"]), body, stamp)
    document = from_json(body)
    match document.get("type"):
        case "url_verification":
            challenge = document.get("challenge")
            if not isinstance(challenge, str) or len(challenge) > 1000:
                raise Malformed("url_verification has no challenge")
            return Challenge(answer=challenge)
        case "event_callback":
            return _event(document, body, stamp)
        case _:  # app_rate_limited, and what is yet to come
            return _interaction(document, body, stamp)


def _event(document: dict[str, Any], body: bytes, stamp: str) -> Received:
    inner = document.get("event")
    event = inner.get("type") if isinstance(inner, dict) else None
    if not isinstance(event, str) or not _WORD.fullmatch(event):
        raise Malformed("event_callback has no event with a type")
    signal, unrecognised = slack_signals.signal(event, document)
    return Received(
        event=event,
        delivery_id=_key(document.get("event_id")) or _made_key(body, stamp),
        installation=_key(document.get("team_id")) or _key(document.get("enterprise_id")),
        document=document,
        dedupe_by_body=False,  # the event id is signed
        signal=signal,
        unrecognised=unrecognised,
    )


def _interaction(document: dict[str, Any], body: bytes, stamp: str) -> Received:
    kind = document.get("type")
    if not isinstance(kind, str) or not _WORD.fullmatch(kind):
        raise Malformed("the request has no type")
    team = document.get("team")
    return Received(
        event=kind,
        delivery_id=_key(document.get("trigger_id")) or _made_key(body, stamp),
        installation=_key(team.get("id") if isinstance(team, dict) else document.get("team_id")),
        document=document,
        dedupe_by_body=False,
    )


def _made_key(body: bytes, stamp: str) -> str:
    """For a request without an id: what was signed, so a replay is recognised and the same words later are new."""
    return f"{stamp}.{hashlib.sha256(body).hexdigest()}"


def _key(value: Any) -> str | None:
    return value if isinstance(value, str) and _KEY.fullmatch(value) else None


SOURCE = Source(name="slack", content_types=frozenset({JSON, FORM}), read=read)
