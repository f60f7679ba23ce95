"""The issuer: signs recorded capabilities, publishes its keys, and verifies its own tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from joserfc import jws

from identity.capability import keys
from identity.capability.keys import PUBLISHED, KeyState, SigningKey
from identity.capability.model import Algorithm
from identity.capability.verifier import DETAIL, SIGNATURES, TYPE, Capability, Key, Verifier, read_key_set
from identity.errors import Misconfigured
from identity.keys.vault import Vault
from identity.secret import Secret
from identity.sql.store import Store

EARLIER = 5  # seconds by which `nbf` precedes `iat`, for verifiers with a slow clock and no leeway
FRESH = timedelta(seconds=5)  # how long a process caches the keys it has read


@dataclass(frozen=True, kw_only=True)
class _KeysAt:
    """The keys by use, as of the time they were read."""

    at: datetime
    signing: Mapping[Algorithm, SigningKey]
    published: tuple[Mapping[str, str], ...]
    by_id: Mapping[str, Key]  # the published ones

    @classmethod
    def of(cls, known: Sequence[SigningKey], at: datetime) -> _KeysAt:
        told = keys.states(known, at)
        published = tuple(key.public for key in known if told[key.kid] in PUBLISHED)
        return cls(
            at=at,
            signing={key.algorithm: key for key in known if told[key.kid] is KeyState.SIGNING},
            published=published,
            by_id=read_key_set({"keys": [dict(public) for public in published]}),
        )


class Issuer:
    """Signs and verifies tokens; one instance serves all threads. *url* is the public address, the tokens' `iss`."""

    def __init__(self, store: Store, vault: Vault, *, url: str, clock: Callable[[], datetime]) -> None:
        self.url = url.rstrip("/")
        self._store = store
        self._vault = vault
        self._clock = clock
        self._opened: dict[str, Key] = {}
        self._lock = threading.Lock()
        self._read: _KeysAt | None = None

    def sign(self, capability: Capability, algorithm: Algorithm) -> Secret:
        """Sign a recorded capability with the current key and return its token. Raises Misconfigured."""
        key = self._keys().signing.get(algorithm)
        if key is None:
            raise Misconfigured(f"no {algorithm} key signs capabilities: make one with `aswhom capability keys rotate`")
        header = {"alg": str(algorithm), "typ": TYPE, "kid": key.kid}
        claims = json.dumps(claims_of(capability, issuer=self.url), separators=(",", ":"))
        return Secret(jws.serialize_compact(header, claims, self._open(key), registry=SIGNATURES))

    def verifier(self, audience: str) -> Verifier:
        """Return a verifier of our own tokens for *audience*."""
        return Verifier(issuer=self.url, audience=audience, keys=self)

    def key(self, kid: str) -> Key | None:
        """Return the public key with that id while it is published (`verifier.Keys`)."""
        return self._keys().by_id.get(kid)

    def key_set(self) -> dict[str, Any]:
        """Return the JWK Set to publish (RFC 7517 §5)."""
        return {"keys": [dict(public) for public in self._keys().published]}

    def _keys(self) -> _KeysAt:
        now = self._clock()
        with self._lock:
            if self._read is None or not timedelta() <= now - self._read.at < FRESH:
                self._read = _KeysAt.of(self._store.read(keys.load), now)
            return self._read

    def _open(self, key: SigningKey) -> Key:
        with self._lock:
            if key.kid not in self._opened:
                self._opened[key.kid] = keys.open_key(self._vault, key)
            return self._opened[key.kid]


def claims_of(capability: Capability, *, issuer: str) -> dict[str, Any]:
    """Return the claims of a capability's token (RFC 7519 §4.1, RFC 8693 §4.1, RFC 9396 §9.1)."""
    detail: dict[str, Any] = {
        "type": DETAIL,
        "locations": [capability.audience],
        "actions": [capability.action],
        "identifier": capability.resource,
    }
    if capability.limit is not None:
        detail["limit"] = {"amount": f"{capability.limit.amount:f}", "currency": capability.limit.currency}
    act: dict[str, Any] = {}
    for actor in reversed(capability.actors):  # the current actor is the outermost
        act = {"sub": actor, "act": act} if act else {"sub": actor}
    issued_at = int(capability.issued_at.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": capability.audience,
        "sub": capability.subject,
        "act": act,
        "iat": issued_at,
        "nbf": issued_at - EARLIER,
        "exp": int(capability.expires_at.timestamp()),
        "jti": capability.id,
        "tenant": capability.tenant,
        "job": capability.job,
        "step": capability.step,
        "request_sha256": capability.request_sha256,
        "authorization_details": [detail],
    }
    if capability.approved_by:
        claims["approved_by"] = list(capability.approved_by)
    return claims
