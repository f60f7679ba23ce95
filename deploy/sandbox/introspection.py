"""Client with which upstream processes ask the authorization server about tokens."""

from typing import Any

import httpx

from deploy.sandbox import clear


class Introspection:
    """A pooled client shared by an upstream's threads."""

    def __init__(self, auth: dict[str, Any]) -> None:
        limits = httpx.Limits(max_connections=128, max_keepalive_connections=128)
        self._client = clear.client(
            base_url=auth["url"], headers={"X-Sandbox-Key": auth["internal_key"]}, timeout=10, limits=limits
        )

    def describe(self, token: str) -> dict[str, Any]:
        """Return `active`, `known` and, if known, the token's owner."""
        return self._ask("/_sandbox/introspect", {"token": token})

    def kill_token(self, token: str, client_id: str) -> dict[str, Any]:
        return self._ask("/_sandbox/kill_token", {"token": token, "client_id": client_id})

    def kill_credential(self, token: str) -> dict[str, Any]:
        """End an access or refresh token of any client."""
        return self._ask("/_sandbox/kill_credential", {"token": token})

    def kill_authorization(self, token: str, client_id: str) -> dict[str, Any]:
        return self._ask("/_sandbox/kill_authorization", {"token": token, "client_id": client_id})

    def revoke(self, provider: str, **which: str) -> dict[str, Any]:
        return self._ask("/_sandbox/revoke", {"provider": provider, **which})

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._client.post(path, json=body)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer
