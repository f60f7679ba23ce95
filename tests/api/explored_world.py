"""What there is in the world that schemathesis walks over: an operation that needs something is handed one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import cycle
from typing import Any
from uuid import uuid4

from sqlalchemy import select

from identity.agents.api_keys import Role
from identity.connections.registry import get_connection
from identity.connections.secrets import WEBHOOK_SECRET, add_secret, seal_secret
from identity.model import Scope, ScopeKind
from identity.secret import Secret
from identity.tables import accounts
from tests.api.agents_api import AgentsApi
from tests.api.product import NONCE, Product, product_of
from tests.identity.providers import PretendProvider
from tests.webhooks.parts import SECRET, github_headers

Case = Any  # of schemathesis: a part of it is whatever its operation takes, and is put in as that

#: What only a signature of somebody else's lets in: their own tests go there.
BY_SIGNATURE = frozenset({"exchange_token", "push_security_event"})


class World:
    """Things of acme's: each has what an example of an operation asks for, and the rest of it stays as it was drawn."""

    def __init__(self, api: AgentsApi, provider: PretendProvider) -> None:
        self._api = api
        self._product: Product = product_of(api, provider)
        self._give_webhook_secret()
        self._states = cycle((self._queued, self._running, self._done, self._cancelled, self._of_a_delivery))
        self._put: Mapping[str, Callable[[Case], None]] = {
            "list_jobs": self._first_page,
            "list_accounts": self._first_page,
            "list_deliveries": self._first_page,
            "list_revocations": self._first_page,
            "show_tool": lambda case: self._at(case, tool="github.Say"),
            "execute_tool": self._execution,
            "show_job": lambda case: self._at(case, id=next(self._states)()),
            "cancel_job": lambda case: self._at(case, id=self._queued()),
            "replay_job": lambda case: self._at(case, id=self._cancelled()),
            "show_account": lambda case: self._at(case, id=self._account()),
            "create_connect_link": self._link,
            "look_at_connect_link": self._came_back,
            "confirm_connect_link": self._came_back,
            "show_delivery": lambda case: self._at(case, id=self._delivery()),
            "show_revocation": lambda case: self._at(case, id=self._revocation()),
            "create_revocation": lambda case: case.body.update(kind="agent", key="acme.bot"),
            "receive_delivery": self._signed,
            "mcp": self._call,
        }

    def put(self, name: str, case: Case) -> None:
        """Into an example of the operation of that name, what it needs to find."""
        self._put.get(name, lambda case: None)(case)

    def _give_webhook_secret(self) -> None:
        now, vault = datetime.now(UTC), self._api.house.vault

        def give(c: Any) -> None:
            owner = get_connection(c, "gh")
            sealed = seal_secret(vault, owner, id="hook-gh", name=WEBHOOK_SECRET, secret=Secret(SECRET), now=now)
            add_secret(c, sealed)

        self._api.database.write(give)

    @staticmethod
    def _at(case: Case, **names: str) -> None:
        case.path_parameters.update(names)

    @staticmethod
    def _first_page(case: Case) -> None:
        case.query.pop("cursor", None)

    def _execution(self, case: Case) -> None:
        self._at(case, tool="github.Say")
        case.body.update(identifier="user:ada", parameters={"text": json.dumps(case.body.get("parameters"))})

    def _link(self, case: Case) -> None:
        case.body["connection"] = "gh"
        for more in ("return_to", "confirm", "nonce", "scopes"):  # which not every role and connection may
            case.body.pop(more, None)

    def _came_back(self, case: Case) -> None:
        brought = self._product.comes_back(self._product.link("grace").json["url"])
        self._at(case, id=brought["aswhom_link"])
        case.body.update(user="grace", code=brought["aswhom_code"], nonce=NONCE)

    def _signed(self, case: Case) -> None:
        body = json.dumps({"action": "opened", "drawn": repr(case.body)}).encode()
        self._at(case, source="github", connection="gh")
        case.body, case.media_type = body, "application/json"
        case.headers.update({"Content-Type": "application/json", **github_headers(body, delivery=str(uuid4()))})

    def _call(self, case: Case) -> None:
        case.query["identifier"] = "user:ada"
        said = {"name": "github__Say", "arguments": {"text": repr(case.body.get("params"))}}
        case.body.update(method="tools/call", id=1, params=said)

    def _new(self, kind: str) -> str:
        return self._api.house.ids(kind)

    def _queued(self) -> str:
        return str(self._api.execute(text=self._new("t"), key=self._api.key()).json["job"]["id"])

    def _running(self) -> str:
        job = self._queued()
        self._api.house.claim(job)
        return job

    def _done(self) -> str:
        job = self._queued()
        self._api.finish(job, result={"id": "7"})
        return job

    def _cancelled(self) -> str:
        job = self._queued()
        assert self._api.ask("POST", f"/v1/jobs/{job}/cancel", self._admin(), json={}).status_code == 200
        return job

    def _of_a_delivery(self) -> str:
        return self._api.house.job()

    def _account(self) -> str:
        mine = select(accounts.c.id).where(accounts.c.tenant_id == "acme").limit(1)
        return str(self._api.database.read(lambda c: c.execute(mine).scalar_one()))

    def _delivery(self) -> str:
        named = self._new("d")
        return self._api.house.accept(self._api.house.delivery(named, text=named)).delivery

    def _revocation(self) -> str:
        """One that has begun, and is over, with a receipt, where nothing runs that it has to wait for."""
        made = self._api.revoke(Scope(kind=ScopeKind.AGENT, key="acme.bot"))
        self._api.revoker.advance(made)
        return made

    def _admin(self) -> Secret:
        return self._api.key(role=Role.ADMIN)
