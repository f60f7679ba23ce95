"""Customers' admins, who revoke by the API of a web process that has nothing else to do."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import httpx

from identity.agents.api_keys import NewApiKey, Role, add_key, new_key
from identity.model import Scope
from tests.bench.ground import Ledger, Processes, listed
from tests.servers.process import free_port


class Admins:
    """One a tenant, on one connection that is kept alive."""

    def __init__(self, ledger: Ledger, processes: Processes, tenants: Sequence[str]) -> None:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        environment = ledger.environment(ASWHOM_LISTEN=f"127.0.0.1:{port}", ASWHOM_BASE_URL=url)
        processes.serve(listed("web").command, environment, f"{url}/readyz")
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=60)
        self._keys = {tenant: self._key(ledger, tenant) for tenant in tenants}

    def _key(self, ledger: Ledger, tenant: str) -> str:
        secret = new_key(secrets.token_urlsafe(32))
        whose = partial(NewApiKey, tenant=tenant, agent=f"{tenant}.admin", role=Role.ADMIN)
        new = whose(id=ledger.house.ids("key"), tools=None, users=None, expires_at=None)
        ledger.write(partial(add_key, secret=secret, new=new, by="bench", now=datetime.now(UTC)))
        return secret.reveal()

    def revoke(self, scope: Scope, tenant: str) -> tuple[float, str]:
        """Seconds from the request to its answer, and the revocation."""
        body = {"kind": scope.kind, "key": scope.key, "reason": "bench"}
        began = time.perf_counter()
        answer = self._client.post(
            "/v1/revocations", json=body, headers={"Authorization": f"Bearer {self._keys[tenant]}"}
        )
        seconds = time.perf_counter() - began
        assert answer.status_code == 201, answer.text
        return seconds, str(answer.json()["id"])

    def close(self) -> None:
        self._client.close()
