"""Interpretation of token responses: every outcome, including no response, maps to one of a closed set of meanings.

    Granted        tokens
    Transient      nothing was done, or nothing was even sent: the same credential may be presented again
    RateLimited    the same, with the wait that the provider asks for
    ClientRefused  the client registration is at fault; the operator must act
    Withheld       neither client nor credential is refused, yet nothing is given until somebody acts
    Dead           the provider no longer accepts the credential
    Unknown        the credential may have been consumed, and the tokens for it are lost

The laws:

- a lifetime, scope or content type that cannot be read never loses a token that was read;
- an unrecognised error code is never fatal to a grant: the provider refused, so nothing was rotated;
- a status of 429 or 5xx is transient, whatever the body says;
- except a gateway timeout (504), after which the outcome is as unknown as after our own timeout;
- a success without a whole token is unknown: the provider may have rotated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from identity.http.client import Answer, NoAnswer, NotSent, Outcome
from identity.model import TokenAnswer
from identity.oauth.lifetime import count, expiry, http_date
from identity.oauth.token_types import kept_type
from identity.providers.permissions import allowed
from identity.providers.profile import Profile
from identity.quoting import error_name
from identity.secret import Secret

_CLIENT = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type", "redirect_uri_mismatch"})
#: OpenID Connect Core §3.1.2.6. Servers also answer a refresh with these when the person must sign in again.
WANT_PERSON = frozenset({"interaction_required", "login_required", "consent_required", "account_selection_required"})
#: RFC 6749 §5.2 and RFC 8707 §2: the request cannot be granted, however often it is repeated.
WITHHELD = frozenset({"invalid_scope", "invalid_request", "invalid_target", "access_denied"})
_TRANSIENT = frozenset({"temporarily_unavailable", "server_error", "request_timeout"})
# `slow_down` is RFC 8628's; the others are providers' names for it, compared without regard to case.
_LIMITED = frozenset({"slow_down", "rate_limited", "ratelimited", "rate_limit_exceeded", "too_many_requests"})
# RFC 9110 §15.6.5; 524 is Cloudflare's name for it. The request had arrived behind the gateway.
_GATEWAY_TIMEOUTS = frozenset({504, 524})
UNRECOGNISED_WAIT = timedelta(minutes=1)
#: RFC 6749 §5.2 uses 401 only for a client that failed to authenticate.
UNNAMED_401 = "unnamed_401"  # a code of ours; `in_words` renders it for people
_TRANSIENT_WAIT = timedelta(seconds=5)
_UNSENT_WAIT = timedelta(seconds=2)
_LIMITED_WAIT = timedelta(seconds=30)
_SECONDARY_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Granted:
    """The provider granted tokens."""

    answer: TokenAnswer


@dataclass(frozen=True, kw_only=True)
class Transient:
    """Nothing was done; the same credential may be presented again after a while."""

    reason: str
    retry_after: timedelta
    recognised: bool = True  # False: an unrecognised error code
    sent: bool = True  # False: certainly nothing left this machine


@dataclass(frozen=True, kw_only=True)
class RateLimited:
    """Too many requests: nothing was done, and nothing should be requested before *retry_after*."""

    reason: str
    retry_after: timedelta


@dataclass(frozen=True, kw_only=True)
class ClientRefused:
    """The client registration is at fault, not a grant; the operator must act."""

    code: str


@dataclass(frozen=True, kw_only=True)
class Withheld:
    """Neither the client nor the credential is refused, yet nothing is given until somebody acts."""

    code: str
    # True: the account's person must act, at the provider; False: the author of the request must change it
    person: bool


@dataclass(frozen=True, kw_only=True)
class Dead:
    """The provider no longer accepts the presented credential, for whatever reason."""

    code: str


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """No whole answer came, or a success without a token: the provider may have rotated."""

    reason: str


Meaning = Granted | Transient | RateLimited | ClientRefused | Withheld | Dead | Unknown


def read_outcome(
    outcome: Outcome,
    profile: Profile,
    *,
    started_at: datetime,
    scopes: tuple[str, ...],
    lifetime: timedelta | None,
    installation: bool = False,
) -> Meaning:
    """Return the meaning of *outcome*, an answer or a failure of the transport. Pure; raises nothing.

    *scopes* are those requested (or granted before), which an answer that names none has granted (RFC 6749 §5.1).
    *lifetime* is the last known one, used when the answer names none. *started_at* is when the request began; the
    token's life counts from then. *installation*: the answer is for an installation of a GitHub App, with a `token`,
    and `permissions` for scopes.
    """
    match outcome:
        case NotSent(reason=reason):
            return Transient(reason=reason, retry_after=_UNSENT_WAIT, sent=False)
        case NoAnswer(reason=reason):
            return Unknown(reason=reason)
    if (meaning := _by_status(outcome, started_at)) is not None:
        return meaning
    if installation and (meaning := _by_message(outcome, started_at)) is not None:
        return meaning
    status, succeeded = outcome.status, 200 <= outcome.status < 300
    document = _document(outcome)
    if document is None and succeeded:
        return Unknown(reason=f"status {status} with a body that is neither JSON nor a form")
    if document is not None and (code := _error_code(document)) is not None:
        return _refusal(code, profile, outcome, started_at)
    if status == 401:
        return ClientRefused(code=UNNAMED_401)
    if document is None or not succeeded:
        reason = f"status {status} without an error code"
        return Transient(reason=reason, retry_after=UNRECOGNISED_WAIT, recognised=False)
    held = profile.select(document) if profile.select else document
    token_field = "token" if installation else "access_token"
    token = _secret(held.get(token_field))
    if token is None or not token.fits_header():
        return Unknown(reason=f"status {status} without {token_field} that could stand in a header")
    granted = allowed(scopes, held.get("permissions")) if installation else _scopes(held.get("scope"), scopes, profile)
    answered_at = http_date(outcome.headers.get("date", ""))
    last = lifetime or profile.default_lifetime
    return Granted(
        answer=TokenAnswer(
            access_token=token,
            refresh_token=_secret(held.get("refresh_token")),
            expires_at=expiry(held, started_at=started_at, answered_at=answered_at, last=last),
            scopes=granted,
            token_type=kept_type(held.get("token_type"), profile.bearer_types),
            repositories=_repositories(held.get("repositories")) if installation else (),
        )
    )


def limits_rate(answer: Answer, now: datetime) -> timedelta | None:
    """Return how long the provider asks to be left alone because of a rate limit; None if it does not."""
    meaning = _by_status(answer, now) or _by_message(answer, now)
    return meaning.retry_after if isinstance(meaning, RateLimited) else None


def _by_status(answer: Answer, started_at: datetime) -> Meaning | None:
    """Return the meaning that the status alone decides; None if the body decides."""
    status = answer.status
    # GitHub's API also limits with 403: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    if status == 429 or (status == 403 and answer.headers.get("x-ratelimit-remaining") == "0"):
        return RateLimited(reason=f"status {status}", retry_after=retry_after_of(answer, started_at, _LIMITED_WAIT))
    if status in _GATEWAY_TIMEOUTS:
        return Unknown(reason=f"status {status}: a gateway got no answer from the provider in time")
    if status == 408 or status >= 500:
        return Transient(reason=f"status {status}", retry_after=retry_after_of(answer, started_at, _TRANSIENT_WAIT))
    return None


def _by_message(answer: Answer, started_at: datetime) -> Meaning | None:
    """Interpret a temporary refusal by GitHub's API, which names no error code; None for anything else.

    For a secondary limit without Retry-After, the wait is at least a minute; x-ratelimit-reset is the primary limit's:
    https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """
    if answer.status != 403:
        return None
    if "retry-after" in answer.headers:
        return RateLimited(reason="status 403", retry_after=retry_after_of(answer, started_at, _SECONDARY_WAIT))
    document = _document(answer)
    message = str(document.get("message", "")).lower() if document is not None else ""
    if "rate limit" in message:
        return RateLimited(reason="status 403", retry_after=_SECONDARY_WAIT)
    if "suspended" in message:  # the suspension's signal parks the jobs, and its end resumes them
        return Transient(reason="status 403: the installation is suspended", retry_after=UNRECOGNISED_WAIT)
    return None


def _document(answer: Answer) -> Mapping[str, Any] | None:
    """Return the body as an object. GitHub answers with a form unless asked for JSON."""
    text = answer.body.decode("utf-8-sig", errors="replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return _form(text)
    return document if isinstance(document, dict) else None


def _form(text: str) -> Mapping[str, str] | None:
    """Return the body as a form, unless it may be truncated: a token in it could be truncated as well.

    A form has no end marker. `token_type` is required (RFC 6749 §5.1) and is GitHub's last field.
    """
    form = dict(parse_qsl(text[:65536], max_num_fields=50)) if text.count("&") < 50 else {}
    return form if "error" in form or {"access_token", "token_type"} <= form.keys() else None


def _error_code(document: Mapping[str, Any]) -> str | None:
    """Return the error code of an answer: by RFC 6749 §5.2, Okta's `errorCode`, Slack's `ok`, or GraphQL's list."""
    match document:
        case {"error": str(code)} if code:
            return code
        case {"errorCode": str(code)} if code and "access_token" not in document:  # beside a token it is meaningless
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


def _refusal(code: str, profile: Profile, answer: Answer, started_at: datetime) -> Meaning:
    if code == "invalid_grant" or code in profile.dead_codes:
        return Dead(code=code)
    if code in _CLIENT or code in profile.client_codes:
        return ClientRefused(code=code)
    if code.lower() in _LIMITED:
        return RateLimited(reason=code, retry_after=retry_after_of(answer, started_at, _LIMITED_WAIT))
    if code in _TRANSIENT or code in profile.transient_codes:
        return Transient(reason=code, retry_after=retry_after_of(answer, started_at, _TRANSIENT_WAIT))
    if code in WANT_PERSON or code in WITHHELD:
        return Withheld(code=code, person=code in WANT_PERSON)
    reason = f"unrecognised error {error_name(code)!r}"
    return Transient(reason=reason, retry_after=UNRECOGNISED_WAIT, recognised=False)


def retry_after_of(answer: Answer, now: datetime, otherwise: timedelta) -> timedelta:
    """Return the wait that Retry-After (RFC 9110 §10.2.3) or a limit's reset time asks for, within bounds."""
    value, reset = (answer.headers.get(name, "").strip() for name in ("retry-after", "x-ratelimit-reset"))
    wait = otherwise
    if (seconds := count(value)) is not None:
        wait = timedelta(seconds=seconds)
    elif (at := http_date(value)) is not None:
        wait = at - now
    # seconds since 1970, as GitHub sends; elsewhere seconds from now
    elif (seconds := count(reset, digits=11)) is not None:
        wait = timedelta(seconds=seconds) if seconds < 1e9 else datetime.fromtimestamp(seconds, UTC) - now
    return min(max(wait, timedelta(seconds=1)), _LONGEST_WAIT)


def _secret(value: Any) -> Secret | None:
    """Return a token, unless it is empty or has characters no token may have.

    An empty refresh token never overwrites one. RFC 6749 §A.12 and §A.17 allow a space. A refresh token is never sent
    in a header, so one with a space is kept.
    """
    if not isinstance(value, str) or not value:
        return None
    token = Secret(value)
    return token if token.is_printable() else None


def _repositories(value: Any) -> tuple[str, ...]:
    """Return their full names. An unreadable one counts as "", because the token covers more than the readable ones."""
    found = value if isinstance(value, list) else []
    names = (one.get("full_name") if isinstance(one, dict) else None for one in found)
    return tuple(name if isinstance(name, str) else "" for name in names)


def _scopes(value: Any, asked: tuple[str, ...], profile: Profile) -> tuple[str, ...]:
    """Return the granted scopes, from a list or from text with spaces or commas; the requested ones if unreadable.

    RFC 6749 §5.1 lets the field be omitted if the grant is as requested, so an empty text grants nothing, unless the
    provider's profile says otherwise.
    """
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, list):
        return asked
    if not value:
        return asked if profile.empty_scope_means_asked else ()
    return tuple(scope for scope in value if isinstance(scope, str) and scope.isprintable()) or asked
