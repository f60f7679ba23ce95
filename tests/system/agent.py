"""An agent of a customer's, at the API."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from identity.agents.api_keys import NewApiKey, Role, add_key, new_key
from tests.system.rig import System


class Agent:
    """Calls the API as an agent of acme."""

    def __init__(self, system: System, role: Role, name: str = "bot") -> None:
        self._system = system
        secret, now = new_key(secrets.token_urlsafe(32)), datetime.now(UTC)
        id, end = system.ids("key"), now + timedelta(hours=1)
        agent = f"acme.{name}"
        new = NewApiKey(id=id, tenant="acme", agent=agent, role=role, tools=None, users=None, expires_at=end)
        system.runtime.database.write(partial(add_key, secret=secret, new=new, by="test", now=now))
        self.headers = {"Authorization": f"Bearer {secret.reveal()}"}

    def ask(self, method: str, path: str, **more: Any) -> Any:
        return self._system.http.request(method, f"{self._system.web}/v1/{path}", headers=self.headers, **more)

    def execute(self, tool: str, identifier: str, **parameters: Any) -> Any:
        body = {"identifier": identifier, "parameters": parameters, "wait": 8}
        return self.ask("POST", f"tools/{tool}/execute", json=body)
