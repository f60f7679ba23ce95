"""Slack's requests: Events API, interactivity and slash commands, all signed alike.

Every validly signed request is answered with 2xx, whichever workspace it is for and even if it cannot be read: Slack
disables an app's events when too many fail. Only a content type that contradicts the body is refused, as that of a form
would be whose first field is unknown. Retries are not dropped as such, since a retry may be the only copy; the event id
decides. A button or dialog gets an empty response. The outcome of a command is in the response, which Slack
shows to the person who typed it; the outcome of one of our buttons goes to the `response_url` that came with it.
https://docs.slack.dev/authentication/verifying-requests-from-slack
https://docs.slack.dev/interactivity/implementing-slash-commands
https://docs.slack.dev/interactivity/handling-user-interaction
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from identity.secret import Secret
from webhooks.sources import slack_answers, slack_signals, slack_words
from webhooks.sources.document import FORM, JSON, Malformed, check_content_type, from_form, from_json, is_form
from webhooks.sources.freshness import stale
from webhooks.sources.reading import Challenge, Fault, Reading, Received, Refusal, Source, Telling, unreadable
from webhooks.sources.signature import signed_by_any
from webhooks.sources.slack_installation import installed

TOLERANCE = timedelta(minutes=5)

_WORD = re.compile(r"[A-Za-z0-9_.]{1,100}")
# Possible first fields of its forms: interactivity has only a payload, and commands have the rest.
_FIELDS = frozenset({
    "payload", "token", "team_id", "team_domain", "enterprise_id", "enterprise_name", "channel_id", "channel_name",
    "user_id", "user_name", "command", "text", "api_app_id", "is_enterprise_install", "response_url", "trigger_id",
    "ssl_check",
})  # fmt: skip
# https://docs.slack.dev/apis/events-api/#rate_limiting: 30,000 per workspace and app an hour
_WITHHELD = "Slack sends more events of this workspace than it lets through, and those of a minute or more never come"
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_UNREADABLE = "unreadable"  # the event of a request that is stored although it cannot be read


def read(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], now: datetime) -> Reading:
    """Verify and read a request, refused if it is not recent."""
    stamp = headers.get("x-slack-request-timestamp", "")
    version, _, signature = headers.get("x-slack-signature", "").partition("=")
    message = b"v0:" + stamp.encode("latin-1", "replace") + b":" + body
    if version != "v0" or not re.fullmatch("[0-9]{1,12}", stamp) or not signed_by_any(secrets, message, signature):
        return Refusal(
            fault=Fault.SIGNATURE,
            detail="X-Slack-Signature or X-Slack-Request-Timestamp is missing, or the signature is not that of this "
            "body and time by any live secret of the connection. Compare the app's signing secret with ours.",
        )
    if refusal := stale(now, int(stamp), TOLERANCE):
        return refusal
    form = is_form(body, _FIELDS)
    try:
        check_content_type(headers.get("content-type", ""), form=form)
    except Malformed as error:  # not stored: the header is unsigned, so anybody could take the real one's id with it
        return unreadable(str(error))
    # Made of the signed data, for a body without an id: a replay is recognised, and the same body sent later is new.
    made = f"{stamp}.{hashlib.sha256(body).hexdigest()}"
    try:
        return _read(body, made)
    except Malformed as error:
        return _unrecognised(body, made, str(error), by_a_person=form)


def reread(_: str, delivery: str, body: bytes) -> Received | Challenge:
    """Read a stored delivery anew. Raises Malformed.

    The body names its event and its id, which a version that could not read it did not find.
    """
    return _read(body, delivery)


def _read(body: bytes, made: str) -> Received | Challenge:
    """Read a request; *made* is its id if the body has none."""
    fields = _fields(body)
    if fields is not None and "payload" not in fields:
        return _command(fields, made)
    document = _document(fields, body)
    match document.get("type"):
        case "url_verification":
            challenge = document.get("challenge")
            if not isinstance(challenge, str) or len(challenge) > 1000:
                raise Malformed("url_verification has no challenge")
            return Challenge(answer=challenge)
        case "event_callback":
            return _event(document, made)
        case "app_rate_limited" if fields is None:
            return replace(_interaction(document, made, by_a_person=False), withheld=True, note=_WITHHELD)
        case _:  # interactivity, and request types unknown so far
            return _interaction(document, made, by_a_person=fields is not None)


def _fields(body: bytes) -> dict[str, str] | None:
    """Return a form's fields; None: the body should be JSON."""
    return from_form(body) if is_form(body, _FIELDS) else None


def _document(fields: dict[str, str] | None, body: bytes) -> dict[str, Any]:
    """Return a request's document: the JSON body, a form's JSON payload, or a command's form itself."""
    if fields is None:
        return from_json(body)
    return from_json(fields["payload"]) if "payload" in fields else fields


def _command(fields: dict[str, str], made: str) -> Received | Challenge:
    """Read a slash command, which is a form without a payload."""
    if fields.get("ssl_check") == "1":  # Slack checks the TLS certificate of a command's address
        return Challenge(answer=None)
    if not fields.get("command", "").startswith("/"):
        raise Malformed("the form has neither a payload nor a command")
    where = installed(fields)
    return Received(
        event="command",
        delivery_id=_key(fields.get("trigger_id")) or made,
        installation=where.installation,
        workspace=where.workspace,
        document=fields,
        dedupe_by_body=False,  # the trigger id is signed
        telling=Telling(says=partial(slack_words.of_command, command=fields["command"])),
    )


def _event(document: dict[str, Any], made: str) -> Received:
    inner = document.get("event")
    event = inner.get("type") if isinstance(inner, dict) else None
    if not isinstance(event, str) or not _WORD.fullmatch(event):
        raise Malformed("event_callback has no event with a type")
    signal, unrecognised = slack_signals.signal(event, document)
    where = installed(document)
    return Received(
        event=event,
        delivery_id=_key(document.get("event_id")) or made,
        installation=where.installation,
        workspace=where.workspace,
        document=document,
        dedupe_by_body=False,  # the event id is signed
        signal=signal,
        unrecognised=unrecognised,
    )


def _interaction(document: dict[str, Any], made: str, *, by_a_person: bool) -> Received:
    kind = document.get("type")
    if not isinstance(kind, str) or not _WORD.fullmatch(kind):
        raise Malformed("the request has no type")
    answer, unrecognised = slack_answers.answer(document) if by_a_person else (None, "")
    where, url = installed(document), document.get("response_url")
    ours = answer is not None or bool(unrecognised)
    return Received(
        event=kind,
        delivery_id=_key(document.get("trigger_id")) or made,
        installation=where.installation,
        workspace=where.workspace,
        document=document,
        dedupe_by_body=False,
        answer=answer,
        unrecognised=unrecognised,
        answered_with_nothing=by_a_person,
        telling=Telling(says=slack_words.of_press, at=url) if ours and isinstance(url, str) else None,
    )


def _unrecognised(body: bytes, made: str, why: str, *, by_a_person: bool) -> Received:
    try:
        document = _document(_fields(body), body)
    except Malformed:
        document = {}
    where = installed(document)
    return Received(
        event=_UNREADABLE,
        delivery_id=made,
        installation=where.installation,
        workspace=where.workspace,
        document=document,
        dedupe_by_body=False,
        unrecognised=why,
        answered_with_nothing=by_a_person,
    )


def _key(value: Any) -> str | None:
    return value if isinstance(value, str) and _KEY.fullmatch(value) else None


SOURCE = Source(name="slack", content_types=frozenset({JSON, FORM}), read=read, reread=reread, a_person_waits=True)
