"""Verifies capability tokens at the service that receives them, using only the issuer's published keys.

An upstream may copy this file: it needs Python and joserfc, and nothing else of Aswhom. Its rules:

- A token is accepted only for this service and this exact request. Each refusal has its own reason.
- Missing permission is refused: a token without a limit allows no amount.
- It does not check that a token is used once: ask the issuer (RFC 7662), or remember the ids you have seen.
- It does not check that a call is carried out once: if its answer was lost, the same call may come with a new token.
  Carry it out once per `tenant`, `step` and `request_sha256`, which all tokens of one call share.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Protocol
from urllib.parse import urlsplit

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

TYPE = "cap+jwt"
DETAIL = "aswhom_action"  # the type of the one entry of `authorization_details` (RFC 9396 §2)
LONGEST = timedelta(seconds=180)
ALGORITHMS = ("Ed25519", "ES256")  # RFC 9864, RFC 7518 §3.4
SIGNATURES = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)  # ignores other members (RFC 7515 §4)

_AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")

Key = OKPKey | ECKey


class Reason(StrEnum):
    """The reason why a token is rejected or does not allow a request. Every claim has its own."""

    MALFORMED = "malformed"  # not a signed JWT in compact form, or its claims are not a JSON object
    TYPE = "type"  # the header's typ: another kind of token must not pass for this one (RFC 8725 §3.11)
    ALGORITHM = "algorithm"
    KEY = "key"  # no published key has this kid, or it is for another algorithm
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"  # issued for another service
    EXPIRED = "expired"
    EARLY = "early"  # not valid yet
    LIFETIME = "lifetime"  # longer than any capability may live
    DETAILS = "details"  # not exactly one entry of authorization_details, of our type, for this service
    REQUEST = "request"  # issued for another request
    # A claim that is missing, of the wrong type, or differs from the request or the record.
    ID = "id"
    SUBJECT = "subject"
    ACTORS = "actors"
    ISSUED_AT = "issued_at"
    NOT_BEFORE = "not_before"
    EXPIRES_AT = "expires_at"
    TENANT = "tenant"
    JOB = "job"
    STEP = "step"
    APPROVED_BY = "approved_by"
    ACTION = "action"
    RESOURCE = "resource"
    AMOUNT = "amount"
    CURRENCY = "currency"


class Refused(Exception):
    """A rejected token. The message quotes nothing of it."""

    def __init__(self, reason: Reason, description: str) -> None:
        super().__init__(f"{reason}: {description}")
        self.reason = reason
        self.description = description


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The highest amount allowed, exact, in the currency's main unit: 12.50, not 1250."""

    amount: Decimal
    currency: str  # ISO 4217


@dataclass(frozen=True, kw_only=True)
class Capability:
    """The content of a token: who asked, through whom, for which step, and what it allows at one service."""

    id: str
    audience: str
    tenant: str
    subject: str  # the principal who asked
    actors: tuple[str, ...]  # the acting parties: the presenter first, the original agent last
    job: str
    step: str
    action: str
    resource: str
    limit: Limit | None  # None: no amount is allowed
    request_sha256: str  # `request_hash` of the one request it is for
    issued_at: datetime
    expires_at: datetime
    approved_by: tuple[str, ...] = ()

    def prohibits(
        self,
        *,
        action: str,
        resource: str,
        tenant: str | None = None,
        amount: Decimal | None = None,
        currency: str | None = None,
    ) -> Reason | None:
        """Return why it does not allow this, or None. A request without an amount moves no money."""
        if tenant is not None and tenant != self.tenant:
            return Reason.TENANT
        if action != self.action:
            return Reason.ACTION
        if resource != self.resource:
            return Reason.RESOURCE
        if amount is None:
            return None
        if self.limit is None or not 0 <= amount <= self.limit.amount:
            return Reason.AMOUNT
        return None if currency == self.limit.currency else Reason.CURRENCY


def request_hash(method: str, target: str, body: bytes) -> str:
    """Return the hex SHA-256 of: method, space, path and query as sent, line feed, body."""
    return sha256(f"{method.upper()} {target}\n".encode() + body).hexdigest()


class Keys(Protocol):
    """The issuer's published keys."""

    def key(self, kid: str) -> Key | None:
        """Return the key with that id, or None. Raises Refused if that cannot be determined."""


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """Verifies one issuer's tokens for one service. *leeway* is the clock difference allowed."""

    issuer: str
    audience: str
    keys: Keys
    leeway: timedelta = timedelta(seconds=5)

    def verify(self, token: str, *, now: datetime, request_sha256: str | None) -> Capability:
        """Return the content of a *token* that is genuine, unexpired, and for this service and request. Raises Refused.

        *request_sha256* is the `request_hash` of the request that carried it; None leaves that check to the caller.
        """
        claims = self._signed(token)
        if claims.get("iss") != self.issuer:
            raise Refused(Reason.ISSUER, "it was issued by somebody else")
        if claims.get("aud") != self.audience:
            raise Refused(Reason.AUDIENCE, "it is for another service")
        capability = read_claims(claims)
        if now >= capability.expires_at + self.leeway:
            raise Refused(Reason.EXPIRED, "it has expired")
        if now < _time(claims, "nbf", Reason.NOT_BEFORE) - self.leeway:
            raise Refused(Reason.EARLY, "it is not valid yet")
        if now < capability.issued_at - self.leeway:
            raise Refused(Reason.ISSUED_AT, "it says that it will be issued")
        if capability.expires_at - capability.issued_at > LONGEST:
            raise Refused(Reason.LIFETIME, f"it lives longer than {LONGEST.total_seconds():.0f} seconds")
        if request_sha256 is not None and request_sha256 != capability.request_sha256:
            raise Refused(Reason.REQUEST, "it was issued for another request")
        return capability

    def _signed(self, token: str) -> Mapping[str, Any]:
        try:
            read = jws.extract_compact(token.encode(), registry=SIGNATURES)
            header = read.headers()
        except (JoseError, ValueError, TypeError, AttributeError):  # joserfc raises the latter two for an odd header
            raise Refused(Reason.MALFORMED, "it is no signed JWT in compact form") from None
        if not isinstance(header, dict):
            raise Refused(Reason.MALFORMED, "its header is no JSON object")
        # No extension is supported here, and `crit` must not be empty (RFC 7515 §4.1.11).
        if "crit" in header:
            raise Refused(Reason.MALFORMED, "its header has a crit")
        if header.get("typ") != TYPE:
            raise Refused(Reason.TYPE, f"the header's typ should be {TYPE}")
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise Refused(Reason.ALGORITHM, f"the header's alg should be one of {', '.join(ALGORITHMS)}")
        key = self.keys.key(kid) if isinstance(kid, str) else None
        if key is None or algorithm_of(key) != algorithm:
            raise Refused(Reason.KEY, "no published key of that algorithm has its kid")
        try:
            genuine = jws.validate_compact(read, key, registry=SIGNATURES)
        except (JoseError, ValueError, TypeError):  # joserfc raises these for an odd `crit`
            raise Refused(Reason.MALFORMED, "it cannot be read") from None
        if not genuine:
            raise Refused(Reason.SIGNATURE, "the signature is not that of this token by that key")
        try:
            claims = json.loads(read.payload)
        except (ValueError, RecursionError):
            claims = None
        if not isinstance(claims, dict):
            raise Refused(Reason.MALFORMED, "its claims are no JSON object")
        return claims


def algorithm_of(key: Key) -> str | None:
    """Return the one algorithm of a key, or None for other kinds of keys."""
    return {"Ed25519": "Ed25519", "P-256": "ES256"}.get(str(key.get("crv")))


def read_claims(claims: Mapping[str, Any]) -> Capability:
    """Read the claims of a token whose signature was verified. Raises Refused."""
    details = claims.get("authorization_details")
    if not isinstance(details, list) or len(details) != 1 or not isinstance(details[0], dict):
        raise Refused(Reason.DETAILS, "authorization_details should have exactly one entry")
    (detail,) = details
    actions, locations = detail.get("actions"), detail.get("locations")
    if detail.get("type") != DETAIL or locations != [claims.get("aud")]:
        raise Refused(Reason.DETAILS, f"the entry should be of type {DETAIL} and for the audience alone")
    if not isinstance(actions, list) or len(actions) != 1:
        raise Refused(Reason.DETAILS, "the entry should name exactly one action")
    approved_by = claims.get("approved_by", [])
    if not isinstance(approved_by, list):
        raise Refused(Reason.APPROVED_BY, "approved_by should be a list")
    return Capability(
        id=_text(claims, "jti", Reason.ID),
        audience=_text(claims, "aud", Reason.AUDIENCE),
        tenant=_text(claims, "tenant", Reason.TENANT),
        subject=_text(claims, "sub", Reason.SUBJECT),
        actors=_actors(claims.get("act")),
        job=_text(claims, "job", Reason.JOB),
        step=_text(claims, "step", Reason.STEP),
        action=_text({"actions": actions[0]}, "actions", Reason.ACTION),
        resource=_text(detail, "identifier", Reason.RESOURCE),
        limit=_limit(detail.get("limit")),
        request_sha256=_text(claims, "request_sha256", Reason.REQUEST),
        issued_at=_time(claims, "iat", Reason.ISSUED_AT),
        expires_at=_time(claims, "exp", Reason.EXPIRES_AT),
        approved_by=tuple(_text({"approved_by": one}, "approved_by", Reason.APPROVED_BY) for one in approved_by),
    )


def _actors(act: Any) -> tuple[str, ...]:
    """Return the chain of `act` (RFC 8693 §4.1), the current actor first."""
    found: list[str] = []
    while act is not None:
        if not isinstance(act, dict) or len(found) > 20:
            raise Refused(Reason.ACTORS, "act should be a chain of actors")
        found.append(_text({"act": act.get("sub")}, "act", Reason.ACTORS))
        act = act.get("act")
    if not found:
        raise Refused(Reason.ACTORS, "act should name who acts")
    return tuple(found)


def _limit(limit: Any) -> Limit | None:
    if limit is None:
        return None
    if not isinstance(limit, dict):
        raise Refused(Reason.AMOUNT, "limit should be an object")
    amount = limit.get("amount")
    if not isinstance(amount, str) or not _AMOUNT.fullmatch(amount):
        raise Refused(Reason.AMOUNT, "limit.amount should be a decimal number in a text, and not negative")
    return Limit(amount=Decimal(amount), currency=_text(limit, "currency", Reason.CURRENCY))


def _text(claims: Mapping[str, Any], name: str, otherwise: Reason) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(otherwise, f"{name} should be a text")
    return value


def _time(claims: Mapping[str, Any], name: str, otherwise: Reason) -> datetime:
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**35:
        raise Refused(otherwise, f"{name} should be a whole number of seconds")
    return datetime.fromtimestamp(value, UTC)


class Unfetched(ValueError):
    """No key set was found at its address. The message quotes neither the address nor the response."""


def fetch(url: str, *, within: timedelta = timedelta(seconds=5)) -> Mapping[str, Any]:
    """Fetch the JWK Set at *url* directly: redirects and the environment's proxies are ignored.

    *within* limits connecting and then the whole response, however slow. Raises OSError, HTTPException or ValueError
    (such as `Unfetched`).
    """
    parts, seconds = urlsplit(url), within.total_seconds()
    kind = {"https": HTTPSConnection, "http": HTTPConnection}.get(parts.scheme)
    if kind is None or parts.hostname is None:
        raise Unfetched("a key set is fetched over HTTP, from a host")
    with closing(kind(parts.hostname, parts.port, timeout=seconds)) as connection:
        connection.connect()
        # Shut down the underlying socket: an orderly TLS shutdown would wait for the peer.
        late = threading.Timer(seconds, socket.socket.shutdown, (connection.sock, socket.SHUT_RDWR))
        late.daemon = True
        late.start()
        try:
            connection.request("GET", f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}")
            answer = connection.getresponse()
            if answer.status != 200:
                raise Unfetched(f"its address answers {answer.status}")
            document = json.loads(answer.read(1 << 18))
        finally:
            late.cancel()
    return document if isinstance(document, dict) else {}


@dataclass(kw_only=True)
class PublishedKeys:
    """A cache of the key set at *url*: refetched after *fresh*, or for an unknown kid at most once per *pause*.

    If a refetch fails, the old keys serve until *stale*: a withdrawn key must not be trusted forever. Requests for
    other keys are refused, with the cause of the failure.
    During a fetch, known keys are still served: only the caller that started it waits, and at most *patience* if the
    key is known. Up to *waiters* other callers with an unknown kid wait for it too, at most *patience*; further ones
    are refused, so that made-up kids cannot occupy all threads. Without a usable key set all callers wait, at most
    *longest*. A fetch that has not ended by then, or whose thread was lost in a fork, is retried.
    """

    url: str
    fetch: Callable[[str], Mapping[str, Any]] = fetch
    fresh: timedelta = timedelta(minutes=5)
    pause: timedelta = timedelta(seconds=10)
    stale: timedelta = timedelta(hours=1)
    patience: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=15)  # exceeds `fetch`, except for a hanging name resolution
    waiters: int = 16  # should be fewer than the service's threads
    monotonic: Callable[[], float] = time.monotonic
    _keys: Mapping[str, Key] = field(default_factory=dict, init=False)
    _fetched: float = field(default=float("-inf"), init=False)
    _tried: float = field(default=float("-inf"), init=False)
    _under_way: threading.Event | None = field(default=None, init=False)  # set when the current fetch has ended
    _not_newer: str = field(default="", init=False)  # why the last fetch failed; empty if it succeeded
    _places: threading.Semaphore = field(default_factory=threading.Semaphore, init=False)  # of the current fetch
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def key(self, kid: str) -> Key | None:
        """Return the key with that id, or None. Raises Refused if that cannot be determined."""
        with self._lock:
            now = self.monotonic()
            age, known = now - self._fetched, self._known(kid, now)
            if known is not None and age < self.fresh.total_seconds():
                return known
            between = self.pause if self._under_way is None else self.longest
            mine = now - self._tried >= between.total_seconds()
            if mine:
                self._begin(now)
            under_way, places = self._under_way, self._places
        if under_way is not None and (mine or age >= self.stale.total_seconds()):
            under_way.wait((self.longest if known is None else self.patience).total_seconds())
        elif under_way is not None and known is None and places.acquire(blocking=False):
            try:
                under_way.wait(self.patience.total_seconds())
            finally:
                places.release()
        with self._lock:
            known = self._known(kid, self.monotonic())
            if known is None and self._not_newer:
                fetched = f"the key set could not be fetched anew ({self._not_newer})"
                todo = "make sure that its address answers this host, then try again"
                raise Refused(Reason.KEY, f"no key that is known here has its kid, and {fetched}: {todo}")
            return known

    def _begin(self, now: float) -> None:
        """Fetch the key set in a thread. If none can be started, a caller after the pause retries."""
        ended = threading.Event()
        self._tried, self._under_way, self._not_newer = now, None, "no answer has come yet"
        self._places = threading.Semaphore(self.waiters)  # those of an earlier fetch may have been lost in a fork
        try:
            threading.Thread(target=self._renew, args=(now, ended), daemon=True).start()
        except RuntimeError:
            self._not_newer = "no thread can be started to fetch it"
            return
        self._under_way = ended

    def _known(self, kid: str, now: float) -> Key | None:
        return self._keys.get(kid) if now - self._fetched < self.stale.total_seconds() else None

    def _renew(self, now: float, ended: threading.Event) -> None:
        found: Mapping[str, Key] | None = None
        not_newer = "what fetches it broke off, with a traceback"
        try:
            found, not_newer = read_key_set(self.fetch(self.url)), ""
        except (OSError, HTTPException, ValueError) as error:
            not_newer = _words(error)
        finally:
            with self._lock:
                if found is not None and now >= self._fetched:
                    self._keys, self._fetched = found, now
                if self._under_way is ended:
                    self._under_way, self._not_newer = None, not_newer
            ended.set()


def _words(error: Exception) -> str:
    """Describe an error without text that may quote the address or the response."""
    said = str(error) if isinstance(error, Unfetched) else getattr(error, "strerror", None)
    return str(said or type(error).__name__)[:200]


def read_key_set(document: Mapping[str, Any]) -> Mapping[str, Key]:
    """Return the keys of a JWK Set (RFC 7517) that may sign capabilities, by id."""
    found: dict[str, Key] = {}
    rows = document.get("keys")
    for row in rows if isinstance(rows, list) else []:
        key = _public_key(row) if isinstance(row, dict) else None
        if key is not None and isinstance(row.get("kid"), str):
            found[row["kid"]] = key
    return found


def _public_key(row: dict[str, Any]) -> Key | None:
    """Return a usable public key; None for a private, unreadable or other kind of key."""
    if "d" in row:
        return None
    try:
        match row.get("kty"), row.get("crv"):
            case "OKP", "Ed25519":
                return OKPKey.import_key(row)
            case "EC", "P-256":
                return ECKey.import_key(row)
    except (JoseError, ValueError, TypeError):
        return None
    return None
