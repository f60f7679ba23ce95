"""By what leave a request comes: its capability, verified by the published keys, and spent at who issued it.

The verifier is the one file of Aswhom's that upstreams are given; it needs nothing else of it.
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
    """A request that is not served, in the codes of RFC 6750 §3.1; *reason* is the verifier's or the issuer's."""

    def __init__(self, status: int, error: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.error, self.reason = status, error, reason


class Leave:
    """Asks one issuer; the service's threads share it."""

    def __init__(self, service: dict[str, Any], clock: Clock) -> None:
        authority = service["authority"]
        # No pause: whoever tries the sandbox out may start its issuer anew, with other keys, at any moment.
        keys = PublishedKeys(url=f"{authority}/.well-known/jwks.json", pause=timedelta())
        self._verifier = Verifier(issuer=authority, audience=service["audience"], keys=keys)
        self._client = clear.client(
            base_url=authority, auth=(service["audience_id"], service["audience_secret"]), timeout=10
        )
        self._clock = clock

    def granted(
        self, *, action: str, resource: str, amount: Decimal | None = None, currency: str | None = None
    ) -> Capability:
        """What allows the request at hand to do this; spent. Raises NoLeave."""
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
