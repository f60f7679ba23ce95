"""The `hmac` source: any sender that signs with an HMAC, described in its provider connection's configuration.

Unsigned parts are not trusted. An id in an unsigned header does not prevent replays, so bodies are deduplicated too;
and a time counts only where it is part of the signed message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from identity.errors import Misconfigured
from identity.secret import Secret
from webhooks.sources.document import JSON, Malformed, from_json
from webhooks.sources.freshness import stale
from webhooks.sources.listening import at, event_of, listened_as
from webhooks.sources.reading import Fault, Reading, Received, Refusal, Source, unreadable
from webhooks.sources.signature import in_base64, mac_by_any

_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_EVENT = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")
_WHERE = re.compile(r"[!-~]{1,200}")  # wider: an account may be named by its e-mail address
_PLACE = re.compile(r"\{([a-z]*)\}")
_MOST_SIGNATURES = 10

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$", to_lower=True)]
Path = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]


class Scheme(BaseModel):
    """A sender's signing scheme and the places of its fields. Validation reports every fault at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sender: str = ""
    signature_header: HeaderName
    signature_prefix: Annotated[str, StringConstraints(pattern=r"^[!-~]{0,20}$")] = ""
    signature_field: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{0,20}$")] = ""  # within `t=…,v1=…`
    encoding: Literal["hex", "base64"] = "hex"
    algorithm: Literal["sha256", "sha384", "sha512"] = "sha256"
    secret_encoding: Literal["text", "base64"] = "text"  # noqa: S105 - an encoding's name
    signed: Annotated[str, StringConstraints(max_length=100)] = "{body}"  # with {body}, {timestamp} and {id}
    timestamp_header: HeaderName | None = None
    timestamp_field: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,20}$")] | None = None
    timestamp_unit: Literal["s", "ms"] = "s"
    tolerance: Annotated[int, Field(ge=1, le=3600)] = 300  # seconds
    id_header: HeaderName | None = None
    id_path: Path | None = None
    event_header: HeaderName | None = None
    event_path: Path = "type"
    installation_path: Path | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        places = _PLACE.findall(self.signed)
        if "{" in _PLACE.sub("", self.signed) or not {"body"} <= set(places) <= {"body", "timestamp", "id"}:
            raise ValueError("signed is made of {body}, which must be in it, {timestamp}, {id} and plain text")
        if len(places) != len(set(places)):
            raise ValueError("signed has a place twice")
        timed = self.timestamp_header is not None or self.timestamp_field is not None
        if timed is not ("timestamp" in places):
            raise ValueError("a time needs {timestamp} in signed, and the other way round: an unsigned one is no guard")
        if "id" in places and self.id_header is None:
            raise ValueError("{id} in signed needs id_header")
        if self.timestamp_header and self.timestamp_field:
            raise ValueError("the time is in timestamp_header or in timestamp_field, not in both")
        return self


def read(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], now: datetime, *, scheme: Scheme
) -> Reading:
    """Verify and read a delivery: signed by a live secret of the connection and, if the time is signed, recently."""
    signature = headers.get(scheme.signature_header, "")
    fields = _fields(signature) if scheme.signature_field or scheme.timestamp_field else []
    given = (
        [value for name, value in fields if name == scheme.signature_field] if scheme.signature_field else [signature]
    )
    stamp = headers.get(scheme.timestamp_header, "") if scheme.timestamp_header else ""
    if scheme.timestamp_field:
        stamp = next((value for name, value in fields if name == scheme.timestamp_field), "")
    id = headers.get(scheme.id_header, "") if scheme.id_header else ""
    timed = "{timestamp}" in scheme.signed
    well_timed = not timed or re.fullmatch("[0-9]{1,15}", stamp) is not None
    if not well_timed or not _signed(scheme, secrets, _message(scheme, body, stamp=stamp, id=id), given):
        return Refusal(
            fault=Fault.SIGNATURE,
            detail=f"{scheme.signature_header} is missing, or is not, by any live secret of the connection, that of "
            f"`{scheme.signed}`. Compare the sender's secret and way of signing with the connection's.",
        )
    if timed and (refusal := _stale(scheme, stamp, now)):
        return refusal
    try:
        return _received(scheme, headers, body, stamp=stamp, id=id)
    except Malformed as error:
        return unreadable(str(error))


def _received(scheme: Scheme, headers: Mapping[str, str], body: bytes, *, stamp: str, id: str) -> Received:
    document = from_json(body)
    named = _text(at(document, scheme.id_path)) if scheme.id_path else id
    if (scheme.id_path or scheme.id_header) and not _KEY.fullmatch(named):
        raise Malformed(f"there is no id of that form in {scheme.id_path or scheme.id_header}")
    event = headers.get(scheme.event_header, "") if scheme.event_header else event_of(document, scheme.event_path)
    if not _EVENT.fullmatch(event):
        raise Malformed(f"{scheme.event_header} is missing or is not the name of an event")
    id_is_signed = bool(scheme.id_path) or "{id}" in scheme.signed
    return Received(
        event=event,
        # Without an id, use the signed data: a replay is recognised, and the same body sent later is new.
        delivery_id=named or f"{stamp}.{hashlib.sha256(body).hexdigest()}",
        installation=_where(scheme, document),
        document=document,
        # A signed time distinguishes repeated bodies only if the id is derived from it.
        dedupe_by_body=not id_is_signed and not (stamp and not named),
        sender=scheme.sender,
    )


def _where(scheme: Scheme, document: Mapping[str, Any]) -> str | None:
    """Return the installation that the body names, if any. Raises Malformed: a misread one must not count as none."""
    named = _text(at(document, scheme.installation_path)) if scheme.installation_path else ""
    if named and not _WHERE.fullmatch(named):
        raise Malformed(f"its {scheme.installation_path} is not the name of an installation")
    return named or None


def reread(event: str, id: str, body: bytes, *, scheme: Scheme | None = None) -> Received:
    """Read a stored delivery anew. Raises Malformed."""
    document = from_json(body)
    where = _where(scheme, document) if scheme else None
    return Received(event=event, delivery_id=id, installation=where, document=document, dedupe_by_body=False)


def _text(value: object) -> str:
    """Return a string or number as text; "" for anything else."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def configured(config: Mapping[str, str]) -> Source:
    """Return the source that a connection's configuration describes. Raises Misconfigured, which names every fault."""
    try:
        scheme = Scheme.model_validate(dict(config))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise Misconfigured(f"this does not describe how a sender signs: {faults}") from None
    listened_as(config)
    return replace(
        SOURCE,
        read=partial(read, scheme=scheme),
        reread=partial(reread, scheme=scheme),
        prohibits=partial(_prohibits, scheme),
    )


def _message(scheme: Scheme, body: bytes, *, stamp: str, id: str) -> bytes:
    """Return the signed message. Headers are inserted verbatim, in one pass, so no value can act as a placeholder."""
    filled = {"body": body, "timestamp": stamp.encode("utf-8", "replace"), "id": id.encode("utf-8", "replace")}
    parts = _PLACE.split(scheme.signed)  # text, place, text, place, text
    return b"".join(filled[part] if place % 2 else part.encode() for place, part in enumerate(parts))


def _signed(scheme: Scheme, secrets: Sequence[Secret], message: bytes, given: Sequence[str]) -> bool:
    prefix = scheme.signature_prefix
    signatures = [one.removeprefix(prefix) for one in given[:_MOST_SIGNATURES] if one.startswith(prefix)]
    keys = [key for secret in secrets if (key := _key(scheme, secret))]
    written: Callable[[bytes], str] = bytes.hex if scheme.encoding == "hex" else in_base64
    return mac_by_any(keys, message, signatures, algorithm=scheme.algorithm, written=written)


def _key(scheme: Scheme, secret: Secret) -> bytes:
    """Return the key's bytes; empty if base64 is required and the text is not base64."""
    if scheme.secret_encoding == "text":  # noqa: S105 - an encoding's name
        return secret.reveal().encode()
    try:
        return base64.b64decode(secret.reveal(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _prohibits(scheme: Scheme, secret: Secret) -> str | None:
    return None if _key(scheme, secret) else "the secret is not base64, which secret_encoding says it is"


def _fields(header: str) -> list[tuple[str, str]]:
    """Split `t=…,v1=…,v1=…`."""
    pairs = (part.strip().partition("=") for part in header.split(",")[: _MOST_SIGNATURES + 1])
    return [(name, value) for name, _, value in pairs]


def _stale(scheme: Scheme, stamp: str, now: datetime) -> Refusal | None:
    seconds = int(stamp) / (1000 if scheme.timestamp_unit == "ms" else 1)
    return stale(now, seconds, timedelta(seconds=scheme.tolerance))


def _undescribed(_: Mapping[str, str], __: bytes, ___: Sequence[Secret], ____: datetime) -> Reading:
    raise Misconfigured("the provider connection does not describe how its sender signs")


SOURCE = Source(name="hmac", content_types=frozenset({JSON}), read=_undescribed, reread=reread, configured=configured)
