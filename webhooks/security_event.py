"""Verification and reading of Security Event Tokens (RFC 8417). Pure: a token and keys in, a value out.

A refusal carries one of the closed set of error codes of RFC 8935 §2.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeGuard

from identity.oauth import jose
from identity.oauth.jose import Key, NotASignedToken, Signed, Unusable
from identity.transmitters import Transmitter
from pipeline.model import SecurityEvent
from webhooks.security_event_types import read_event, stream_status
from webhooks.sources.document import Malformed, from_json

TYPE = "secevent+jwt"
AHEAD = timedelta(minutes=5)  # how far a transmitter's clock may be ahead of ours


class Code(StrEnum):
    """The error codes of RFC 8935 §2.4 that can occur."""

    INVALID_REQUEST = "invalid_request"  # not a SET, or an event of the wrong shape
    INVALID_KEY = "invalid_key"  # signed by a key that the transmitter does not have
    INVALID_ISSUER = "invalid_issuer"
    INVALID_AUDIENCE = "invalid_audience"
    AUTHENTICATION_FAILED = "authentication_failed"  # the key does not verify the signature


class Unproven(StrEnum):
    """Refusals before a signature was verified; anybody may have sent these."""

    UNSIGNED = "unsigned"  # nothing in it claims to be the transmitter's
    UNVERIFIED = "unverified"  # it names the transmitter's issuer: the transmitter may have changed its keys


class Refused(Exception):
    """A refused token; *description* is for the transmitter's operators, and quotes nothing.

    *unproven*: no signature of the transmitter was verified. None: the token is the transmitter's own.
    """

    def __init__(self, code: Code, description: str, *, unproven: Unproven | None = None) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description
        self.unproven = unproven


def unverified(token: bytes, transmitter: Transmitter) -> Signed:
    """Parse a token without verifying it. Raises Refused if it is not a SET of this transmitter."""
    try:
        signed = jose.read(token)
    except Unusable as error:
        raise _unusable(error, Unproven.UNSIGNED) from None
    # RFC 8417 §2.3: an ID token must not be accepted as a SET. `_untimely` tells untyped tokens apart by their claims.
    if signed.type != TYPE and not (transmitter.plain_jwt and signed.type in (None, "jwt")):
        named = _named(signed, transmitter)
        raise Refused(Code.INVALID_REQUEST, f"the header's typ should be {TYPE}", unproven=named)
    return signed


def read(signed: Signed, key: Key | None, transmitter: Transmitter, *, now: datetime) -> SecurityEvent:
    """Return the token's event if *key*, which the token names, signed it for this audience. Raises Refused."""
    claims = _claims(signed, key, unproven=_named(signed, transmitter))
    if claims.get("iss") != transmitter.issuer:
        raise Refused(Code.INVALID_ISSUER, "iss is not the issuer that is registered for this transmitter")
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(one, str) and one in transmitter.audiences for one in named):
        raise Refused(Code.INVALID_AUDIENCE, "aud is no audience that is registered for this transmitter")
    _untimely(claims, is_typed=signed.type == TYPE, now=now)
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= 200 or not jti.isprintable():
        raise Refused(Code.INVALID_REQUEST, "jti should be a text of at most 200 characters")
    events = claims.get("events")
    if not isinstance(events, dict) or not events or not all(isinstance(event, dict) for event in events.values()):
        raise Refused(Code.INVALID_REQUEST, "events should hold at least one event, each an object")
    try:
        readings = [
            read_event(kind, event, claims, issuer=transmitter.names_subjects_of) for kind, event in events.items()
        ]
    except Malformed as error:
        raise Refused(Code.INVALID_REQUEST, str(error)) from None
    return SecurityEvent(
        transmitter=transmitter.id,
        jti=jti,
        events=tuple(events),
        signals=tuple(signal for signal, _ in readings if signal is not None),
        note="; ".join(note for _, note in readings if note),
        token=signed.token,
        issued_at=datetime.fromtimestamp(max(0, claims["iat"]), UTC),
        stream=stream_status(events),
    )


def _named(signed: Signed, transmitter: Transmitter) -> Unproven:
    """Return UNVERIFIED if the token names the transmitter's issuer, otherwise UNSIGNED.

    Anybody can write that: it only classifies refusals.
    """
    said = jose.claims(signed.payload) or {}
    return Unproven.UNVERIFIED if said.get("iss") == transmitter.issuer else Unproven.UNSIGNED


def _claims(signed: Signed, key: Key | None, *, unproven: Unproven) -> Mapping[str, Any]:
    if key is None:
        raise Refused(
            Code.INVALID_KEY,
            "the transmitter's key set has no key of that kid for that alg, or without a kid, not exactly one",
            unproven=unproven,
        )
    try:
        is_genuine = signed.is_signed_by(key)
    except Unusable as error:
        raise _unusable(error, unproven) from None
    if not is_genuine:
        said = "the signature is not that of this token by the key it names"
        raise Refused(Code.AUTHENTICATION_FAILED, said, unproven=unproven)
    try:
        return from_json(signed.payload)
    except Malformed as error:
        raise Refused(Code.INVALID_REQUEST, f"the claims cannot be read: {error}") from None


def _unusable(error: Unusable, unproven: Unproven) -> Refused:
    """Return the refusal; the codes differ so that the transmitter's operators do not suspect keys that are fine."""
    if isinstance(error, NotASignedToken):
        return Refused(Code.INVALID_REQUEST, f"the token cannot be read: {error}", unproven=unproven)
    return Refused(Code.INVALID_KEY, f"the token cannot be verified: {error}", unproven=unproven)


def _untimely(claims: Mapping[str, Any], *, is_typed: bool, now: datetime) -> None:
    """Raise Refused for an untimely token, or one whose time claims suggest an ID token."""
    issued, expires = claims.get("iat"), claims.get("exp")
    if not _is_number(issued) or issued > (now + AHEAD).timestamp():
        raise Refused(Code.INVALID_REQUEST, "iat should be a number of seconds, and not ahead of now")
    if not is_typed and (expires is not None or "nonce" in claims):
        raise Refused(Code.INVALID_REQUEST, f"without the typ {TYPE}, a token with exp or nonce may be an ID token")
    # A SET should have no exp (RFC 8417 §2.2); if it has one, it is refused after it (RFC 7519 §4.1.4).
    if expires is not None and (not _is_number(expires) or expires <= (now - AHEAD).timestamp()):
        raise Refused(Code.INVALID_REQUEST, "exp has passed, or is no number of seconds: leave it out of a SET")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
