"""Workload identity: a JWT from a trusted issuer replaces an agent's key.

Agents on platforms that give each workload signed tokens (Kubernetes, a cloud, a CI) need no secret for Aswhom. A
workload is a key (`identity.agents.api_keys`) whose secret nobody has: role, tools, quota and expiry are the key's. The
token is checked as RFC 7523 §3 and RFC 8725 §3 require.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeGuard

from sqlalchemy import Connection, Row, insert, select

from identity import audit
from identity.agents.api_keys import Caller, NoCaller, find_again
from identity.agents.tables import api_keys, workloads
from identity.audit import Act, AsWhom
from identity.errors import BadInput
from identity.http.client import Client
from identity.oauth import jose
from identity.oauth.jose import Signed, Unusable
from identity.oauth.jwks import KeyRing
from identity.secret import Secret
from identity.sql.store import Store

TYPES = frozenset({None, "jwt", "at+jwt"})  # tokens signed for other purposes declare another type (RFC 8725 §3.11)
SKEW = timedelta(seconds=30)
LONGEST = timedelta(days=1)  # a longer-lived token would be a key that cannot be revoked


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The exact claims of accepted tokens."""

    issuer: str
    audience: str  # the issuer's name for us
    subject: str
    jwks_url: str


def looks_like_one(secret: Secret) -> bool:
    """True if it is a JWT rather than a key."""
    return secret.reveal().count(".") == 2


def add_workload(connection: Connection, key: str, new: Workload, *, by: str, now: datetime) -> None:
    """Let *new* authenticate as *key*, on behalf of *by*. Raises BadInput if another key has the same workload."""
    who = (
        workloads.c.issuer == new.issuer,
        workloads.c.audience == new.audience,
        workloads.c.subject == new.subject,
    )
    if (taken := connection.execute(select(workloads.c.key_id).where(*who)).scalar_one_or_none()) is not None:
        raise BadInput(f"{taken} is called by these tokens already: take a subject or an audience of its own")
    row = {"issuer": new.issuer, "audience": new.audience, "subject": new.subject, "jwks_url": new.jwks_url}
    connection.execute(insert(workloads), {"key_id": key, **row})
    whose = connection.execute(select(api_keys.c.tenant_id, api_keys.c.agent_id).where(api_keys.c.id == key)).one()
    audit.record_act(
        connection,
        "workload.trusted",
        AsWhom(tenant=whose.tenant_id, agent=whose.agent_id),
        Act(audit_id=f"{key}.trusted", by=by, now=now),
        outcome="trusted",
        detail={"key": key, **row},
    )


class Workloads:
    """Authenticates the senders of tokens. One for all threads; open it after any fork."""

    def __init__(self, store: Store, http: Client, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        # No other ring: the holders of its keys are let in.
        self._keys = KeyRing.giving_authority(http, monotonic=monotonic)

    def caller(self, token: Secret, *, now: datetime) -> Caller | NoCaller:
        """Return the sender of *token*, or why it is refused.

        Raises Unavailable if its issuer's keys cannot be fetched.
        """
        sent = _unverified(token)
        if sent is None:
            return NoCaller.UNKNOWN
        signed, claims = sent
        trusted = self._store.read(lambda c: _trusted(c, claims))
        if trusted is None:
            return NoCaller.UNKNOWN
        key = self._keys.key(trusted.jwks_url, signed)
        try:
            if key is None or not signed.is_signed_by(key):
                return NoCaller.UNKNOWN
        except Unusable:
            return NoCaller.UNKNOWN
        return _untimely(claims, now) or self._store.read(lambda c: find_again(c, trusted.key_id, now=now))


def _unverified(token: Secret) -> tuple[Signed, Mapping[str, Any]] | None:
    """Return the token and its unverified claims; None if it is not a workload's token."""
    try:
        signed = jose.read(token.reveal().encode())
    except (Unusable, UnicodeEncodeError):
        return None
    claims = jose.claims(signed.payload)
    return None if signed.type not in TYPES or claims is None else (signed, claims)


def _trusted(connection: Connection, claims: Mapping[str, Any]) -> Row[Any] | None:
    """Return the only workload that the claims name.

    Unprintable text is rejected, also because PostgreSQL takes no NUL.
    """
    issuer, subject, audience = claims.get("iss"), claims.get("sub"), claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if len(audiences) > 20 or not all(
        isinstance(text, str) and text.isprintable() for text in (issuer, subject, *audiences)
    ):
        return None
    named = (workloads.c.issuer == issuer, workloads.c.subject == subject, workloads.c.audience.in_(audiences))
    found = connection.execute(select(workloads).where(*named).limit(2)).all()
    return found[0] if len(found) == 1 else None  # with two matches it would be a guess


def _untimely(claims: Mapping[str, Any], now: datetime) -> NoCaller | None:
    """Return why the token is not valid at this time; a token must state its lifetime."""
    issued, expires = claims.get("iat"), claims.get("exp")
    begins = claims.get("nbf", issued)
    if not (_is_number(issued) and _is_number(expires) and _is_number(begins)):
        return NoCaller.UNKNOWN
    moment, skew = now.timestamp(), SKEW.total_seconds()
    if expires - issued > LONGEST.total_seconds() or max(issued, begins) > moment + skew:
        return NoCaller.UNKNOWN
    return NoCaller.EXPIRED if expires <= moment - skew else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
