"""Security event types as data: the action each one asks for and whom its subject means. Pure.

A subject is identified by `iss_sub` (of the one issuer whose subjects the transmitter names, usually itself) or
`opaque`, directly or within `aliases`. An e-mail address or phone number never identifies a person: addresses pass from
one person to another, and nobody has proven ownership here.
CAEP 1.0, RISC 1.0 and SSF 1.0 at openid.net; Google's at https://developers.google.com/identity/protocols/risc
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from identity.oauth.token_digests import double
from identity.quoting import kept
from identity.transmitters import ENABLED, STREAM_STATUSES
from pipeline.signal import Asks, Holders, Nobody, People, Signal, Whom
from webhooks.sources.document import Malformed

Claims = Mapping[str, Any]
_OPENID = "https://schemas.openid.net/secevent/"


@dataclass(frozen=True, kw_only=True)
class EventType:
    """One event type: its short name, the action it asks for, and its reason (for NOTE, why no action follows)."""

    name: str
    asks: Asks
    reason: str


def _type(path: str, asks: Asks, reason: str) -> tuple[str, EventType]:
    family, _, name = path.replace("event-type/", "").partition("/")
    return _OPENID + path, EventType(name=f"{family}.{name}", asks=asks, reason=reason)


TYPES: Mapping[str, EventType] = dict(
    (
        _type("caep/event-type/session-revoked", Asks.REVOKE, "a session of the user was revoked"),
        _type("caep/event-type/credential-change", Asks.REVOKE, "a credential of the user was withdrawn"),
        _type("caep/event-type/token-claims-change", Asks.RENEW, "the claims of the user's tokens have changed"),
        _type("risc/event-type/sessions-revoked", Asks.REVOKE, "the user's sessions were revoked"),
        _type("risc/event-type/account-disabled", Asks.REVOKE, "the user's account was disabled"),
        _type("risc/event-type/account-purged", Asks.REVOKE, "the user's account was deleted"),
        _type("risc/event-type/credential-compromise", Asks.REVOKE, "a credential of the user was compromised"),
        _type("oauth/event-type/tokens-revoked", Asks.REVOKE, "the user's tokens were revoked"),
        _type("oauth/event-type/token-revoked", Asks.REVOKE, "the token was revoked"),
        _type("risc/event-type/account-enabled", Asks.NOTE, "new work may begin; what was cancelled stays cancelled"),
        _type("risc/event-type/account-credential-change-required", Asks.NOTE, "the user must change a credential"),
        _type("caep/event-type/assurance-level-change", Asks.NOTE, "no grant depends on the level of assurance"),
        _type("caep/event-type/risk-level-change", Asks.NOTE, "no grant depends on the level of risk"),
        _type("caep/event-type/device-compliance-change", Asks.NOTE, "no grant depends on a device"),
        _type("caep/event-type/session-established", Asks.NOTE, "a session began"),
        _type("caep/event-type/session-presented", Asks.NOTE, "a session was seen"),
        _type("risc/event-type/identifier-changed", Asks.NOTE, "people are not known by addresses"),
        _type("risc/event-type/identifier-recycled", Asks.NOTE, "people are not known by addresses"),
        _type("ssf/event-type/verification", Asks.NOTE, "the stream works"),
        _type("risc/event-type/verification", Asks.NOTE, "the stream works"),
        _type("ssf/event-type/stream-updated", Asks.NOTE, "the stream's status has changed"),
    )
)

_OF_STREAM = frozenset({"ssf.verification", "risc.verification"})
# A session of such an account does not clear it, whenever it began: the event may be older than the sign-in, for
# example a date from which somebody was to be disabled.
_OF_ACCOUNT = frozenset({"risc.account-disabled", "risc.account-purged", "risc.credential-compromise"})
# CAEP 1.0 §3.3: a new or changed credential takes nothing from the user.
_WITHDRAWN = frozenset({"revoke", "delete"})


def read_event(kind: str, event: Claims, claims: Claims, *, issuer: str) -> tuple[Signal | None, str]:
    """Return the signal of an event, or why it is none. Raises Malformed if it does not have its type's shape."""
    known = TYPES.get(kind)
    if known is None:
        return None, f"{kept(kind, longest=120)} is not a type that is known here"
    if known.name == "ssf.stream-updated":
        return None, f"{known.name}: {known.reason} to {kept(str(event.get('status')), longest=20)}"
    if known.asks is Asks.NOTE:
        return None, f"{known.name}: {known.reason}"
    if known.name == "caep.credential-change" and _change(event) not in _WITHDRAWN:
        return None, f"{known.name}: a credential was made or changed, and none was withdrawn"
    return Signal(
        source=known.name,
        asks=known.asks,
        whom=(_whom(event, claims, issuer),),
        reason=known.reason,
        happened_at=_happened_at(event, claims),
        of_account=known.name in _OF_ACCOUNT,
    ), ""


def stream_status(events: Mapping[str, Claims]) -> str | None:
    """Return the status of the stream that a token's events came by; None: unknown.

    An event about a subject implies an enabled stream (SSF 1.0 §8.1.2). A verification may come in any status.
    """
    names = {known.name if (known := TYPES.get(kind)) else kind: event for kind, event in events.items()}
    if (updated := names.get("ssf.stream-updated")) is not None:
        status = updated.get("status")
        return status if status in STREAM_STATUSES else None
    return None if names.keys() <= _OF_STREAM else ENABLED


def _change(event: Claims) -> str:
    change = event.get("change_type")
    if change not in ("create", "revoke", "update", "delete"):
        raise Malformed("credential-change should have a change_type of create, revoke, update or delete")
    return str(change)


def _whom(event: Claims, claims: Claims, issuer: str) -> Whom:
    """Return the subject: `sub_id` at the top (SSF 1.0), or `subject` inside the event (RISC drafts, Google)."""
    subject = claims.get("sub_id", event.get("subject"))
    if not isinstance(subject, dict):
        raise Malformed("an event should have a subject: sub_id, or subject inside the event")
    return _person(subject, issuer)


def _person(subject: Claims, issuer: str) -> Whom:
    kind = subject.get("format", subject.get("subject_type"))
    match kind:
        case "iss_sub" | "iss-sub" | "id_token_claims":  # the last is Google's: iss and sub, with an e-mail address
            if subject.get("iss") != issuer:
                return Nobody(why="the subject is of another issuer than the one this transmitter is registered for")
            return People(ids=frozenset({_text(subject, "sub")}))
        case "opaque":
            return People(ids=frozenset({_text(subject, "id")}))
        case "complex":
            user = subject.get("user")
            if not isinstance(user, dict):
                return Nobody(why="the subject names no user, and sessions and devices are not known here")
            return _person(user, issuer)
        case "oauth_token":
            return _holders(subject)
        case "aliases":
            return _any_of(subject, issuer)
        case "email" | "phone_number" | "account":
            return Nobody(why=f"the subject is named by {kind}, which is never taken for a person")
        case _:
            return Nobody(why="the subject is of a format that names no person here")


def _any_of(subject: Claims, issuer: str) -> Whom:
    """Return one subject by several names (RFC 9493 §3.2.8): the people in known formats; others are ignored."""
    names = subject.get("identifiers")
    if not isinstance(names, list) or not names or not all(isinstance(name, dict) for name in names):
        raise Malformed("aliases should have a list of identifiers, each an object")
    if len(names) > 100 or any(name.get("format") == "aliases" for name in names):
        raise Malformed("aliases should hold at most 100 identifiers, and no aliases again")
    known = [one for one in (_person(name, issuer) for name in names) if isinstance(one, People)]
    if not known:
        return Nobody(why="none of the subject's aliases is a name by which people are known here")
    return People(ids=frozenset().union(*(one.ids for one in known)))


def _holders(subject: Claims) -> Whom:
    if subject.get("token_type") != "refresh_token":
        return Nobody(why="the subject is a token that is not kept here")
    match subject.get("token_identifier_alg"):
        case "hash_base64_sha512_sha512":
            return Holders(digest=_text(subject, "token"))
        case "prefix":
            return Holders(digest=double(_text(subject, "token")), of_prefix=True)
        case _:
            return Nobody(why="the subject is a token, named in a way that is not known here")


def _text(subject: Claims, field: str) -> str:
    value = subject.get(field)
    # Printable: the ledger stores no NUL and no lone surrogate, and JSON can spell both.
    if not isinstance(value, str) or not 0 < len(value) <= 500 or not value.isprintable():
        raise Malformed(f"the subject's {field} should be a text")
    return value


def _happened_at(event: Claims, claims: Claims) -> datetime:
    """Return when it happened: the event's own time, then `toe` (RFC 8417 §2.2), then when the token was issued."""
    for value in (event.get("event_timestamp"), claims.get("toe"), claims.get("iat")):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1 << 37:
            return datetime.fromtimestamp(value, UTC)
    raise Malformed("iat should be a number of seconds")
