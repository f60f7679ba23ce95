"""Two tenants with keys, the API's test client, and whoever works while a request waits."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import Connection, select

from identity.accounts.stops import set_stopped
from identity.agents.api_keys import Caller, NewApiKey, Role, add_key, new_key
from identity.agents.workloads import Workloads
from identity.audit import Act
from identity.audit.tables import audit
from identity.capability.audiences import new_secret
from identity.capability.authority import Authority
from identity.capability.issuer import Issuer
from identity.capability.keys import NewKey
from identity.capability.model import Algorithm, Audience
from identity.http.addresses import AddressPolicy
from identity.http.client import Client
from identity.keys.signing import Signer
from identity.model import Scope
from identity.oauth.jwks import KeyRing
from identity.secret import Secret
from pipeline.accounts.connecting import Connecting
from pipeline.accounts.invitations import Invitations
from pipeline.agents_api.callers import Requests
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database, WithTurn
from pipeline.deliveries.intake import Intake
from pipeline.deliveries.security_event_intake import SecurityEventIntake
from pipeline.desk.audiences import register
from pipeline.jobs import claims
from pipeline.revocation import declaration
from pipeline.states import StepState
from pipeline.tables import steps
from tests.ledger.connect_flow import connect_flow
from tests.ledger.house import House, Say, say_it
from tests.ledger.revokers import quiet_revoker
from tests.webhooks.parts import MemoryRing
from webhooks.api.app import Agents
from webhooks.app import create_app
from webhooks.quota import Quota, Spent
from webhooks.settings import WebSettings

TENANTS = ("acme", "globex")
BASE = "http://127.0.0.1"


class AgentsApi:
    """`keys["acme", Role.AGENT]` is a key of acme's agent `acme.bot`."""

    def __init__(self, database: Database, *workflows: Workflow) -> None:
        self._http = Client(policy=AddressPolicy(allow_hosts=frozenset({"127.0.0.1"})), pool_size=2)
        self.close = self._http.close
        self._quota = Quota(10_000, None)
        self.house = House(database)
        self.house.build()
        self.house.connect("globex", "globex.ada")
        self.house.give_secret("gh")
        self.database = database
        self.ring = MemoryRing()
        self.signer = Signer.from_seed(bytes(32))
        self.at_work: Callable[[], None] = lambda: None  # what happens while a request waits
        self.keys = {(tenant, role): self.key(tenant, role=role) for tenant in TENANTS for role in Role}
        self.deploy(Registry(workflows or [say_it]))

    def deploy(self, workflows: Registry) -> None:
        """From here on, the web has these."""
        self.workflows = workflows
        self.revoker = quiet_revoker(self.database, self.signer, workflows)
        keys = KeyRing(self._http)
        workloads = Workloads(WithTurn(self.database, ahead=True), self._http, monotonic=lambda: self.monotonic)
        connect = connect_flow(self.house, self._http, self.signer, base_url=BASE)
        self.invitations = Invitations(self.database, connect, workflows, self.house.ids, base_url=BASE)
        self.requests = Requests(self.database, workflows, self.house.ids, workloads, pause=self._while_waiting)
        self.app = create_app(
            WebSettings(base_url=BASE),
            Intake(self.database, self.house.vault, self.house.ids, clock=self.now),
            workflows,
            self.ring,
            agents=Agents(
                requests=self.requests,
                invitations=self.invitations,
                workflows=workflows,
                quota=self,
            ),
            security_events=SecurityEventIntake(self.database, keys, self.house.ids, clock=self.now),
            authority=self._authority(),
            connector=Connecting(self.database, connect, workflows),
            clock=self.now,
        )
        self.client: FlaskClient = self.app.test_client()

    ahead = timedelta()
    monotonic = 1000.0  # by which it goes how old the keys of workloads are

    def limit(self, rate: int) -> None:
        """From here on, *rate* requests a minute."""
        self._quota = Quota(rate, None)

    def spend(self, key: str, own: int | None = None) -> Spent:
        return self._quota.spend(key, own)

    def _authority(self) -> Authority:
        issuer = Issuer(self.database, self.house.vault, url=BASE, clock=self.now)
        return Authority(self.database, issuer, ids=self.house.ids, clock=self.now)

    def _while_waiting(self, seconds: float) -> None:
        self.at_work()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def key(
        self,
        tenant: str = "acme",
        *,
        role: Role = Role.AGENT,
        agent: str = "bot",
        whole: bool = False,
        tools: list[str] | None = None,
        users: list[str] | None = None,
    ) -> Secret:
        """A new key; *whole*: the agent's id is as it is given."""
        secret, now = new_key(secrets.token_urlsafe(32)), datetime.now(UTC)
        new = NewApiKey(
            id=self.house.ids("key"),
            tenant=tenant,
            agent=agent if whole else f"{tenant}.{agent}",
            role=role,
            tools=tools,
            users=users,
            expires_at=now + timedelta(days=1),
        )
        self.database.write(partial(add_key, secret=secret, new=new, by="test", now=now))
        return secret

    def service(self) -> str:
        """A service that takes capabilities registers; what it authenticates with."""
        secret, pair = new_secret(secrets.token_urlsafe(32)), NewKey.make(Algorithm.ED25519, self.house.vault)
        new = Audience(
            id="invoices",
            uri="https://invoices.example",
            tenant="acme",
            connection=None,
            algorithm=Algorithm.ED25519,
            passes_to=(),
        )
        act = Act(audit_id=self.house.ids("aud"), by="test", now=self.now())
        self.database.write(lambda c: register(c, new, secret, pair, act, provider=None, api_url=""))
        return "Basic " + b64encode(f"{new.id}:{secret.reveal()}".encode()).decode()

    def caller(self, key: Secret | None = None) -> Caller:
        """Who holds the key."""
        found = self.requests.caller(key or self.keys["acme", Role.AGENT], now=self.now())
        assert isinstance(found, Caller)
        return found

    def ask(
        self,
        method: str,
        path: str,
        key: Secret | None = None,
        *,
        json: object = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The answer, to acme's agent unless another key is given."""
        key = key or self.keys["acme", Role.AGENT]
        sent = {"Authorization": f"Bearer {key.reveal()}", **(headers or {})}
        return self.client.open(path, method=method, json=json, headers=sent)

    def execute(
        self,
        identifier: str = "ada",
        text: str = "hello",
        *,
        wait: float = 0,
        key: Secret | None = None,
        **headers: str,
    ) -> Any:
        body = {"identifier": identifier, "parameters": {"text": text}, "wait": wait}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", "/v1/tools/github.Say/execute", key, json=body, headers=sent)

    def revoke(self, scope: Scope, tenant: str = "acme") -> str:
        id = self.house.ids("rev")
        cause = declaration.Cause(source="test", by="test", reason="no")
        declare = partial(declaration.declare, scope=scope, cause=cause, id=id, tenant=tenant, now=datetime.now(UTC))
        self.database.write(declare)
        return id

    def stop(self, scope: Scope, *, stopped: bool = True) -> None:
        act = Act(audit_id=self.house.ids("aud"), by="test", now=datetime.now(UTC))
        self.database.write(lambda c: set_stopped(c, scope, act, stopped=stopped, tenant="acme"))

    def acts(self) -> list[str]:
        """What people did about jobs, as the audit has it."""
        kinds = select(audit.c.kind).where(audit.c.kind.in_(("job.cancelled", "job.replayed"))).order_by(audit.c.number)
        return list(self.database.read(lambda c: c.execute(kinds).scalars().all()))

    def finish(self, job: str, *, result: dict[str, Any]) -> None:
        """As a worker would end the job of a tool: its step is done, and it is."""
        claimed, now, step = self.house.claim(job), datetime.now(UTC), self.house.ids("step")
        row = {
            "id": step,
            "job_id": job,
            "position": 1,
            "action": Say.action_name(),
            "occurrence": 1,
            "named": "user",
            "principal_id": claimed.user or f"{claimed.tenant}.service",
            "pattern": claimed.pattern,
            "reason": "named by the workflow",
            "request_hash": "hash",
            "parameters": {},
            "state": StepState.DONE,
            "result": result,
            "opened_at": now,
            "closed_at": now,
        }

        def end(c: Connection) -> None:
            c.execute(steps.insert().values(row))
            claims.finish(c, claimed)

        self.database.write(end)
