"""Security Event Tokens (RFC 8417): verified, and read for what they say. Pure: a token and keys in, a value out.

A token that is refused is answered as RFC 8935 §2.3 wants it, with one of its closed set of codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from joserfc import jws
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import KeySet

from identity.transmitters import Transmitter
from pipeline.model import SecurityEvent
from webhooks.security_event_types import read_event
from webhooks.sources.document import Malformed, from_json

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")  # asymmetric, or whoever verifies could sign
TYPES = frozenset({"secevent+jwt", "application/secevent+jwt"})
AHEAD = timedelta(minutes=5)  # how far a transmitter's clock may be ahead of ours


class Code(StrEnum):
    """The error codes of RFC 8935 §2.4 that there is an occasion for."""

    INVALID_REQUEST = "invalid_request"  # no SET, or not of its event's shape
    INVALID_KEY = "invalid_key"  # signed by a key that is none of the transmitter's
    INVALID_ISSUER = "invalid_issuer"
    INVALID_AUDIENCE = "invalid_audience"
    AUTHENTICATION_FAILED = "authentication_failed"  # the signature is not that of this token by that key


class Refused(Exception):
    """A token that is not taken; *description* is for the transmitter's people, and quotes nothing."""

    def __init__(self, code: Code, description: str) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description


def key_id(token: bytes) -> str:
    """The id of the key that the token says signed it. Raises Refused for what is no SET."""
    try:
        header = jws.extract_compact(token).headers()
    except (JoseError, ValueError, TypeError, AttributeError):  # the latter are joserfc's for an odd header
        raise Refused(Code.INVALID_REQUEST, "the body is not a signed JWT in compact form") from None
    if not isinstance(header, dict):
        raise Refused(Code.INVALID_REQUEST, "the token's header is no JSON object")
    kind, kid = header.get("typ"), header.get("kid")
    # RFC 8417 §2.3: an ID token must not pass for one.
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise Refused(Code.INVALID_REQUEST, "the header's typ should be secevent+jwt")
    if header.get("alg") not in ALGORITHMS:
        raise Refused(Code.INVALID_KEY, f"the header's alg should be one of {', '.join(ALGORITHMS)}")
    if not isinstance(kid, str) or not kid:
        raise Refused(Code.INVALID_KEY, "the header should name the key by a kid")
    return kid


def read(token: bytes, key: KeySet | None, transmitter: Transmitter, *, now: datetime) -> SecurityEvent:
    """What the token says, if *key*, the one it names, signed it for us. Raises Refused."""
    claims = _claims(token, key)
    if claims.get("iss") != transmitter.issuer:
        raise Refused(Code.INVALID_ISSUER, "iss is not the issuer that is registered for this transmitter")
    audience = claims.get("aud")
    if transmitter.audience not in (audience if isinstance(audience, list) else [audience]):
        raise Refused(Code.INVALID_AUDIENCE, "aud is not the audience that is registered for this transmitter")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= 200 or not jti.isprintable():
        raise Refused(Code.INVALID_REQUEST, "jti should be a text of at most 200 characters")
    issued = claims.get("iat")
    if not isinstance(issued, int | float) or isinstance(issued, bool) or issued > (now + AHEAD).timestamp():
        raise Refused(Code.INVALID_REQUEST, "iat should be a number of seconds, and not ahead of now")
    events = claims.get("events")
    if not isinstance(events, dict) or not events or not all(isinstance(event, dict) for event in events.values()):
        raise Refused(Code.INVALID_REQUEST, "events should hold at least one event, each an object")
    try:
        readings = [read_event(kind, event, claims, issuer=transmitter.issuer) for kind, event in events.items()]
    except Malformed as error:
        raise Refused(Code.INVALID_REQUEST, str(error)) from None
    return SecurityEvent(
        transmitter=transmitter.id,
        jti=jti,
        events=tuple(events),
        signals=tuple(signal for signal, _ in readings if signal is not None),
        note="; ".join(note for _, note in readings if note),
        token=token,
    )


def _claims(token: bytes, key: KeySet | None) -> Mapping[str, Any]:
    if key is None:
        raise Refused(Code.INVALID_KEY, "no key of the transmitter's key set has that kid")
    try:
        payload = jws.deserialize_compact(token, key, algorithms=list(ALGORITHMS)).payload
    except BadSignatureError:
        raise Refused(
            Code.AUTHENTICATION_FAILED, "the signature is not that of this token by the key it names"
        ) from None
    except (JoseError, ValueError, TypeError):
        raise Refused(Code.INVALID_KEY, "the key it names does not go with its alg") from None
    try:
        return from_json(payload)
    except Malformed as error:
        raise Refused(Code.INVALID_REQUEST, f"the claims cannot be read: {error}") from None
