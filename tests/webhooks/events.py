"""A transmitter's hands: keys, and tokens signed with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from joserfc import jws
from joserfc.jwk import OctKey, RSAKey
from sqlalchemy import Connection

from identity.oauth.jose import Key, public_key
from identity.principals import link_alias
from identity.transmitters import Transmitter, add_transmitter

ISSUER, AUDIENCE = "https://idp.example/", "https://aswhom.example/events"
CAEP, RISC = (f"https://schemas.openid.net/secevent/{family}/event-type/" for family in ("caep", "risc"))
SESSION_REVOKED = CAEP + "session-revoked"
KEY = RSAKey.generate_key(2048, {"kid": "k1"})
OTHER = RSAKey.generate_key(2048, {"kid": "k2"})
TRANSMITTER = Transmitter(
    id="idp",
    issuer=ISSUER,
    audience=AUDIENCE,
    jwks_url="https://idp.example/jwks",
    tenant="acme",
    connection=None,
)


def register(c: Connection, *some: Transmitter, now: datetime) -> None:
    """Add these, the first of which knows ada as u-1."""
    for one in some:
        assert add_transmitter(c, one, now=now)
    whose: dict[str, Any] = {"tenant": "acme", "provider": some[0].id, "external_id": "u-1"}
    assert link_alias(c, **whose, principal="acme.ada", login=None, made_by="admin:t", now=now)


def public(key: Key) -> Key:
    """As a ring finds it in a key set."""
    found = public_key(key.as_dict(private=False))
    assert found is not None
    return found


def jwks(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def claims(event: Mapping[str, Any] | None = None, *, kind: str = SESSION_REVOKED, **more: Any) -> dict[str, Any]:
    """The claims of one event about the user `u-1`."""
    stated = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "jti": "j-1",
        "iat": 1772366400,
        "sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "u-1"},
        "events": {kind: dict(event or {})},
    }
    return {name: value for name, value in (stated | more).items() if value is not None}


def sign(payload: Mapping[str, Any] | bytes, key: Key | OctKey = KEY, *, alg: str = "RS256", **header: Any) -> bytes:
    head = {"alg": alg, "typ": "secevent+jwt", "kid": key.kid} | header
    head = {name: value for name, value in head.items() if value is not None}
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return jws.serialize_compact(head, body, key, algorithms=[alg]).encode()
