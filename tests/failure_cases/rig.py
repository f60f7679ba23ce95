"""The real coordinator, worker and ledger, between a person who consents and a provider that misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

import redis
from sqlalchemy import Connection, func, select, update

from identity.accounts.grants import ACCESS, Grant, get_grant, note_use, token_binding
from identity.accounts.leases import examine
from identity.accounts.states import Account, get_account
from identity.audit.tables import audit
from identity.capability.issuer import Issuer
from identity.connect.consent_ledger import Consent, Consented
from identity.connect.consents import CompletedConsent, write_consent
from identity.connections.registry import get_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.http.client import Answer, Client
from identity.model import AccountKey, Credential, Effect, LeaseOutcome, LeaseRequest, PrincipalKind
from identity.oauth.answers import Granted, read_outcome
from identity.principals import ensure_principal
from identity.providers import PROFILES
from identity.providers.profile import Profile
from identity.refresh.coordinator import Coordinator
from identity.refresh.keepalive import Keepalive
from identity.refresh.lock import RefreshLock
from identity.refresh.tables import refresh_intents
from identity.secret import Secret
from identity.sql.sequence import next_number
from identity.tables import grants, provider_connections
from identity.token_endpoint.budget import RefreshBudget
from pipeline.action import Facts, Recovery
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database
from pipeline.execution.services import Services, StepSettings
from pipeline.execution.worker import Worker, WorkerSettings
from pipeline.tables import jobs
from pipeline.throttle.breaker import Breakers
from pipeline.throttle.budget import Budgets
from pipeline.throttle.in_flight import InFlight
from pipeline.upstream import Upstream
from pipeline.workflow import USER, ExternalUser, Trigger, workflow
from tests.confiners import NoConfiner
from tests.failure_cases.provider import Provider
from tests.identity.coordinators import put_together
from tests.killed import killed_at
from tests.ledger.house import House, Opened, Say
from tests.webhooks.parts import MemoryRing

ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")
SERVICE = AccountKey(tenant="acme", connection="gh", principal="acme.service")
SCOPES = ("read", "write")
SIGNING_SECRET = "signing-canary"
BUDGET = RefreshBudget(
    send=timedelta(seconds=20),
    http=timedelta(seconds=10),
    store=timedelta(seconds=30),
    wait=timedelta(seconds=60),
    poll=timedelta(milliseconds=20),
)


class Post(Say):
    """Says something, which takes the scope write."""

    facts: ClassVar[Facts] = Facts(
        provider="github",
        scopes=frozenset({"write"}),
        effect=Effect.WRITE,
        attribution=False,
        recovery=Recovery.IDEMPOTENT,
    )


@workflow(
    agent="tester",
    event=Opened,
    on=Trigger(source="github", event="pull_request", read=Opened.model_validate),
    user=lambda event: ExternalUser(provider="github", id=event.author, login="ada"),
    triggered_by=lambda event: f"github:{event.author}",
    uses={Post: USER},
)
def post_it(run: Any, event: Opened) -> None:
    run.do(Post(text=event.text), as_=run.user)


class Clock:
    """Real time, which a test may move ahead."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, **how_far: float) -> None:
        self.ahead += timedelta(**how_far)


class Rig(House):
    """Tenant acme, whose ada consents at the provider; her work is to post."""

    def __init__(self, database: Database, provider: Provider, http: Client) -> None:
        super().__init__(database)
        self.workflow = post_it
        self.provider = provider
        self.http = http
        self.clock = Clock()

    def build(self) -> None:
        now = datetime.now(UTC)
        for tenant in ("acme", "globex"):
            self.database.write(partial(self._tenant, tenant=tenant, now=now))
        url = self.provider.url
        here = {"api_url": url, "authorize_url": f"{url}/authorize", "token_url": f"{url}/token"}
        self.database.write(lambda c: c.execute(update(provider_connections).values(here)))
        self.add_secret(CLIENT_SECRET, "client-canary")

    def add_secret(self, name: str, secret: str, *, connection: str = "gh") -> None:
        """An operator's act: a new secret of the provider connection."""
        owner = self.database.read(lambda c: get_connection(c, connection))
        sealed = seal_secret(
            self.vault, owner, id=self.ids("sec"), name=name, secret=Secret(secret), now=datetime.now(UTC)
        )
        self.database.write(lambda c: add_secret(c, sealed))

    def consent(self, *scopes: str, key: AccountKey = ADA, provider: str = "github", person: str = "1001") -> str:
        """Ada, *person* at the provider, connects her account; its id."""
        began, response = self.clock(), self.provider.consent(*(scopes or SCOPES))
        headers = {name.lower(): value for name, value in response.headers.items()}
        answer = Answer(status=response.status_code, headers=headers, body=response.content, elapsed=timedelta())
        meaning = read_outcome(answer, PROFILES[provider], started_at=began, scopes=scopes or SCOPES, lifetime=None)
        assert isinstance(meaning, Granted), meaning
        consent = Consent(
            id=self.ids("acc"),
            key=key,
            provider=provider,
            credential=Credential.AUTHORIZATION_CODE,
            consented=self.database.write(next_number),
            external_id=person,
        )
        granted = meaning.answer
        completed = CompletedConsent(
            consent=consent, answer=granted, scopes=granted.scopes, at=began, also=lambda c, done: None
        )
        stored = write_consent(self.database, self.vault, completed)
        assert isinstance(stored, Consented), stored
        return stored.account

    def age(self, account: str) -> None:
        """Her token is an hour old, and about to end."""
        now = self.clock()
        old = {"obtained_at": now - timedelta(hours=1), "expires_at": now + timedelta(seconds=30)}
        self.database.write(lambda c: c.execute(update(grants).where(grants.c.account_id == account).values(old)))

    def coordinator(
        self,
        client: redis.Redis | None = None,
        *,
        die_at: str | None = None,
        lock_ttl: timedelta | None = None,
        database: Database | None = None,
        grace: int = 0,
        rotates: bool = True,
        **budget: timedelta,
    ) -> Coordinator:
        """One as a worker process has it."""

        times = replace(BUDGET, **budget)
        profile: Profile = replace(PROFILES["github"], grace_seconds=grace, rotates=rotates)
        return put_together(
            database or self.database,
            self.vault,
            self.http,
            RefreshLock(client, ttl=lock_ttl or times.lock_ttl, token=partial(self.ids, "lock")),
            {"github": profile},
            clock=self.clock,
            ids=partial(self.ids, "ref"),
            budget=times,
            reached=killed_at(die_at),
        )

    def keepalive(self, *, idle_limit: timedelta | None = None) -> Keepalive:
        """Housekeeping's, with the coordinator of a worker."""
        coordinator = self.coordinator()
        return Keepalive(
            self.database,
            lambda due: coordinator.refresh(due.account, after_generation=due.generation),
            {"github": replace(PROFILES["github"], idle_limit=idle_limit)},
            lambda due, profile: None,
            clock=self.clock,
        )

    def person(self, name: str) -> AccountKey:
        """Somebody else of the tenant."""
        now = self.clock()
        add = partial(ensure_principal, id=name, tenant="acme", kind=PrincipalKind.USER, name=name, now=now)
        self.database.write(add)
        return replace(ADA, principal=name)

    def use(self, account: str) -> None:
        """A step opens with its token."""
        used = partial(note_use, account=account, generation=self.grant(account).generation, now=self.clock())
        self.database.write(used)

    def expires(self, account: str) -> datetime:
        ends = self.grant(account).expires_at
        assert ends is not None
        return ends

    def wait(self, how_long: timedelta) -> None:
        """Time passes, here and at the provider."""
        self.clock.ahead += how_long
        self.provider.wait(how_long)

    def keepalive_due(self, account: str) -> datetime:
        """When housekeeping looks at it next."""
        found = select(grants.c.keepalive_due).where(grants.c.account_id == account)
        due: datetime = self.database.read(lambda c: c.execute(found).scalar_one())
        return due

    def worker(self, coordinator: Coordinator) -> Worker:
        """One as a worker process has it; no broker rings it, the test does."""
        services = Services(
            store=self.database,
            vault=self.vault,
            coordinator=coordinator,
            upstream=Upstream(self.http),
            issuer=Issuer(self.database, self.vault, url="https://aswhom.example", clock=lambda: datetime.now(UTC)),
            ids=self.ids,
            settings=StepSettings(backoff=timedelta(milliseconds=10)),
            confiner=NoConfiner(),
            budgets=Budgets(None),
            breakers=Breakers(None),
            in_flight=InFlight(StepSettings.silent_calls),
        )
        return Worker(services, Registry([post_it]), MemoryRing(), WorkerSettings())

    def due_now(self) -> None:
        """Whatever waits for its time need wait no longer."""
        now = datetime.now(UTC)
        self.database.write(lambda c: c.execute(update(jobs).values(due_at=now, rung_until=None)))

    def lease(self, *, after_generation: int = 0) -> LeaseOutcome:
        """What a step that opens now would get."""
        request = LeaseRequest(
            tenant=ADA.tenant,
            connection=ADA.connection,
            agent="tester",
            principal=ADA.principal,
            accepted=self.database.write(next_number),
            scopes=frozenset({"write"}),
            after_generation=after_generation,
            now=self.clock(),
        )
        return self.database.read(lambda c: examine(c, request))

    def account(self, account: str) -> Account:
        return self.database.read(lambda c: get_account(c, account))

    def grant(self, account: str) -> Grant:
        grant = self.database.read(lambda c: get_grant(c, account))
        assert grant is not None
        return grant

    def token(self, account: str, name: str = ACCESS) -> str:
        """The stored token, opened."""
        grant = self.grant(account)
        sealed = grant.access_sealed if name == ACCESS else grant.refresh_sealed
        assert sealed is not None
        return self.vault.open(sealed, token_binding("acme", account, "github", name, grant.generation)).reveal()

    def works(self, account: str) -> bool:
        """Whether the provider takes the token that is stored."""
        return self.provider.takes(self.token(account))

    def intents(self) -> list[Any]:
        rows = select(refresh_intents).order_by(refresh_intents.c.opened)
        return list(self.database.read(lambda c: c.execute(rows).all()))

    def audited(self, kind: str) -> int:
        count = select(func.count()).select_from(audit).where(audit.c.kind == kind)
        return int(self.database.read(lambda c: c.execute(count).scalar_one()))

    def do(self, change: Callable[[Connection], object]) -> None:
        self.database.write(change)
