"""What a token endpoint's raw answer means: one of a closed set of outcomes.

The laws:

- a lifetime, scope or content type that cannot be read never loses a token that was read;
- an error code that nobody knows is never fatal to a grant: the provider refused, so nothing was rotated;
- a status of 429 or 5xx is transient, whatever the body says;
- a success that holds no token is unknown: the provider may have rotated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl

from identity.http import Answer
from identity.model import TokenAnswer
from identity.providers.profile import Profile
from identity.quoting import error_name
from identity.secret import Secret

_CLIENT = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type", "redirect_uri_mismatch"})
_TRANSIENT = frozenset({"temporarily_unavailable", "server_error", "slow_down", "rate_limited", "request_timeout"})
_UNRECOGNISED_WAIT = timedelta(minutes=1)
_TRANSIENT_WAIT = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(hours=1)
_GUESSED_LIFETIME = timedelta(hours=1)
_LONGEST_LIFETIME = timedelta(days=3650)


@dataclass(frozen=True, kw_only=True)
class Granted:
    """Tokens."""

    answer: TokenAnswer


@dataclass(frozen=True, kw_only=True)
class Transient:
    """Nothing was done; the same credential may be presented again after a while."""

    reason: str
    retry_after: timedelta
    recognised: bool = True  # False: an error code that nobody here knows


@dataclass(frozen=True, kw_only=True)
class ClientRefused:
    """The client registration is at fault, and with it the operator; no grant is."""

    code: str


@dataclass(frozen=True, kw_only=True)
class Dead:
    """The presented credential is no good any more, for whatever reason."""

    code: str


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """It says success and holds no token: the provider may have rotated."""

    reason: str


Meaning = Granted | Transient | ClientRefused | Dead | Unreadable


def read_answer(
    answer: Answer,
    profile: Profile,
    *,
    started_at: datetime,
    scopes: tuple[str, ...],
    lifetime: timedelta | None,
    token_field: str = "access_token",  # noqa: S107 - a field's name
) -> Meaning:
    """The meaning of *answer*. Pure.

    *scopes* are those asked for (or granted before): what an answer that names none has granted (RFC 6749 §5.1).
    *lifetime* is the last known one, used when the answer names none. *started_at* is when the request began: the
    token's life counts from no later than that.
    """
    status = answer.status
    if status == 429 or status == 408 or status >= 500:
        return Transient(reason=f"status {status}", retry_after=_retry_after(answer, started_at))
    document = _document(answer)
    if document is None:
        if 200 <= status < 300:
            return Unreadable(reason=f"status {status} with a body that is neither JSON nor a form")
        return Transient(
            reason=f"status {status} without an error code", retry_after=_UNRECOGNISED_WAIT, recognised=False
        )
    if (code := _error_code(document)) is not None:
        return _refusal(code, profile, _retry_after(answer, started_at))
    if not 200 <= status < 300:
        return Transient(
            reason=f"status {status} without an error code", retry_after=_UNRECOGNISED_WAIT, recognised=False
        )
    held = profile.select(document) if profile.select else document
    token = _secret(held.get(token_field))
    if token is None:
        return Unreadable(reason=f"status {status} without {token_field}")
    token_type = held.get("token_type")
    return Granted(
        answer=TokenAnswer(
            access_token=token,
            refresh_token=_secret(held.get("refresh_token")),
            expires_at=_expiry(held, started_at, lifetime or profile.default_lifetime),
            scopes=_scopes(held.get("scope"), scopes),
            token_type=token_type[:32] if isinstance(token_type, str) and token_type else "bearer",
        )
    )


def _document(answer: Answer) -> Mapping[str, Any] | None:
    """The body as an object. GitHub answers with a form unless it is asked for JSON."""
    text = answer.body.decode("utf-8", errors="replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        form = dict(parse_qsl(text[:65536], max_num_fields=50)) if text.count("&") < 50 else {}
        return form if "access_token" in form or "error" in form else None
    return document if isinstance(document, dict) else None


def _error_code(document: Mapping[str, Any]) -> str | None:
    """The error an answer names: by RFC 6749 §5.2, by Slack's `ok`, or as GraphQL's list."""
    match document:
        case {"error": str(code)} if code:
            return code
        case {"error": {"code": str(code)} | {"type": str(code)}}:
            return code
        case {"errors": [{"extensions": {"code": str(code)}}, *_]}:
            return code
        case {"errors": [_, *_]} | {"ok": False}:
            return "unnamed"
        case {"error": error} if error:
            return "unnamed"
        case _:
            return None


def _refusal(code: str, profile: Profile, retry_after: timedelta) -> Meaning:
    if code == "invalid_grant" or code in profile.dead_codes:
        return Dead(code=code)
    if code in _CLIENT or code in profile.client_codes:
        return ClientRefused(code=code)
    if code in _TRANSIENT or code in profile.transient_codes:
        return Transient(reason=code, retry_after=retry_after)
    reason = f"unrecognised error {error_name(code)!r}"
    return Transient(reason=reason, retry_after=_UNRECOGNISED_WAIT, recognised=False)


def _retry_after(answer: Answer, now: datetime) -> timedelta:
    """Retry-After (RFC 9110 §10.2.3) in either form, within bounds."""
    value = answer.headers.get("retry-after", "").strip()
    wait = _TRANSIENT_WAIT
    if value.isdecimal() and len(value) < 10:
        wait = timedelta(seconds=int(value))
    elif value:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return wait
        wait = at - now if at.tzinfo is not None else wait
    return min(max(wait, timedelta(seconds=1)), _LONGEST_WAIT)


def _secret(value: Any) -> Secret | None:
    """A token, unless it is empty or could not stand in a header. An empty refresh token never overwrites one."""
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        return None
    return Secret(value)


def _expiry(held: Mapping[str, Any], started_at: datetime, lifetime: timedelta | None) -> datetime | None:
    """When the token ends, by `expires_in` or else `expires_at`, else by *lifetime*; None: it does not."""
    if (seconds := _number(held.get("expires_in"))) is not None:
        life = timedelta(seconds=max(0.0, min(seconds, 1e9)))
        if life:  # 1e-10 is no lifetime either: less than a clock can tell
            return started_at + min(life, _LONGEST_LIFETIME)
    if (at := _moment(held.get("expires_at"))) is not None and at > started_at:
        return min(at, started_at + _LONGEST_LIFETIME)
    # Something that cannot be read still says that the token ends.
    says_so = any(held.get(name) is not None for name in ("expires_in", "expires_at"))
    fallback = lifetime or (_GUESSED_LIFETIME if says_so else None)
    return None if fallback is None else started_at + fallback


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _moment(value: Any) -> datetime | None:
    """ISO 8601, as GitHub's installations have it, or seconds since 1970."""
    if (seconds := _number(value)) is not None:
        return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < 32503680000 else None
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _scopes(value: Any, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The granted scopes: a list, or text with spaces or commas. GitHub Apps answer with an empty text."""
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    named = tuple(scope for scope in value if isinstance(scope, str)) if isinstance(value, list) else ()
    return named or asked
