"""Authorization of a request by its capability: verified with the published keys, and spent at its issuer.

The verifier is the one file of Aswhom that upstreams are given. It needs nothing else from it.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
from flask import request

from deploy.sandbox import clear
from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.journal import Clock
from deploy.sandbox.surface import entry
from identity.capability.verifier import Capability, PublishedKeys, Refused, Verifier, request_hash


class NoLeave(Exception):
    """A refused request, with RFC 6750 §3.1's codes. *reason* is the verifier's or the issuer's."""

    def __init__(self, status: int, error: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.error, self.reason = status, error, reason


class Leave:
    """A client of one issuer, shared by the service's threads."""

    def __init__(self, service: dict[str, Any], clock: Clock) -> None:
        authority = service["authority"]
        # No pause between fetches: the issuer may be restarted with other keys at any moment.
        keys = PublishedKeys(url=f"{authority}/.well-known/jwks.json", pause=timedelta())
        self._verifier = Verifier(issuer=authority, audience=service["audience"], keys=keys)
        self._client = clear.client(
            base_url=authority, auth=(service["audience_id"], service["audience_secret"]), timeout=10
        )
        self._clock = clock

    def granted(
        self, *, action: str, resource: str, amount: Decimal | None = None, currency: str | None = None
    ) -> Capability:
        """Return the capability that allows this request, and spend it. Raise NoLeave."""
        token, seen = _presented(), request_hash(request.method, request.environ["RAW_URI"], request.get_data())
        try:
            capability = self._verifier.verify(token, now=self._clock(), request_sha256=seen)
        except Refused as refused:
            raise NoLeave(401, "invalid_token", str(refused.reason)) from None
        entry().token_kind, entry().tenant, entry().actor = "capability", capability.tenant, capability.subject
        reason = capability.prohibits(action=action, resource=resource, amount=amount, currency=currency)
        if reason is not None:
            raise NoLeave(403, "insufficient_scope", str(reason))
        self._spend(token, seen)
        return capability

    def _spend(self, token: str, seen: str) -> None:
        try:
            answer = self._client.post("/oauth/introspect", data={"token": token, "request_sha256": seen})
            answer.raise_for_status()
        except httpx.HTTPError:
            raise NoLeave(503, "temporarily_unavailable", "who issued the token cannot be asked") from None
        said = answer.json()
        if not said["active"]:
            raise NoLeave(401, "invalid_token", said.get("reason", "inactive"))


def _presented() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NoLeave(401, "invalid_token", "none")
    entry().token_fingerprint = fingerprint(token.strip())
    return token.strip()
