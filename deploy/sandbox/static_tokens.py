"""Tokens issued once and for all: their holders, and whether they still work."""

import threading
from typing import Any

from flask import Blueprint, Response, jsonify, request

from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.surface import BadControl, entry, json_body


class StaticTokens:
    """One token per holder, found by its fingerprint."""

    def __init__(self, holders: dict[str, dict[str, Any]], *, tenant: str) -> None:
        """*holders* maps tokens to their holders' rows. *tenant* is the row's field with the tenant."""
        self._lock = threading.Lock()
        self._holders = {fingerprint(token): row for token, row in holders.items()}
        self._tenant = tenant
        self._ended: set[str] = set()

    def presented(self, kind: str) -> tuple[dict[str, Any] | None, bool]:
        """Return the holder of the request's token, and whether the token works. Both are logged."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None, False
        mark = fingerprint(token.strip())
        entry().token_fingerprint = mark
        row = self._holders.get(mark)
        if row is None:
            return None, False
        entry().token_kind, entry().tenant = kind, row[self._tenant]
        with self._lock:
            return row, mark not in self._ended

    def control(self) -> Blueprint:
        """Return the `revoke` and `restore` endpoints, which take a tenant."""
        routes = Blueprint("tokens", __name__)

        def marks() -> set[str]:
            tenant = json_body("tenant")["tenant"]
            found = {mark for mark, row in self._holders.items() if row[self._tenant] == tenant}
            if not found:
                raise BadControl(f"{tenant} has no token here")
            return found

        @routes.post("/_sandbox/revoke")
        def revoke() -> Response:
            with self._lock:
                self._ended |= marks()
            return jsonify(ok=True)

        @routes.post("/_sandbox/restore")
        def restore() -> Response:
            with self._lock:
                self._ended -= marks()
            return jsonify(ok=True)

        return routes
