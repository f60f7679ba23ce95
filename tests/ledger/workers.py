"""Workers of one installation between a ledger and a pretend upstream, over real HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import redis
from sqlalchemy import Connection, select, update

from identity.capability.issuer import Issuer
from identity.connections.registry import get_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.http.client import Client
from identity.model import AccountKey
from identity.providers import PROFILES
from identity.refresh.coordinator import Coordinator
from identity.refresh.lock import RefreshLock
from identity.secret import Secret
from identity.tables import accounts, grants, provider_connections
from identity.token_endpoint.gate import Gate
from pipeline.accounts.connecting import Away, Connecting, Done
from pipeline.authoring.registry import Registry
from pipeline.duties import reconcile
from pipeline.execution.services import Services, StepSettings
from pipeline.execution.worker import Worker, WorkerSettings
from pipeline.model import Ring
from pipeline.run import Run
from pipeline.states import JobState
from pipeline.tables import jobs as jobs_table
from pipeline.throttle.breaker import Breakers
from pipeline.throttle.budget import Budgets
from pipeline.throttle.in_flight import InFlight
from pipeline.upstream import Upstream
from tests.confiners import NoConfiner
from tests.identity.coordinators import BUDGET, put_together
from tests.identity.providers import PretendProvider, reply
from tests.ledger.acts import SIGNER
from tests.ledger.connect_flow import connect_flow
from tests.ledger.house import House, Say
from tests.webhooks.parts import MemoryRing

AS_SHIPPED = StepSettings()
# In place of that of the settings: a busy machine's commit may take longer, and no test here waits for it to pass.
SEND_WITHIN = timedelta(seconds=30)
ADA = "acc-acme.ada"
SAID = reply({"id": "7"})
REFUSED = reply({"message": "Bad credentials"}, 401)
HOUR = timedelta(hours=1)
TOKEN = "token-acme.ada-1"


def _unshared() -> dict[str, Any]:
    """The limits of one process without Redis."""
    return {
        "confiner": NoConfiner(),
        "budgets": Budgets(None),
        "breakers": Breakers(None),
        "in_flight": InFlight(StepSettings.silent_calls),
    }


class Workers:
    """Workers of one installation, an upstream that may refuse tokens, and a token endpoint that rotates."""

    def __init__(self, house: House, provider: PretendProvider, http: Client) -> None:
        self.house, self.provider, self.http = house, provider, http
        house.database.write(self._furnish)
        self.redis: redis.Redis | None = None
        self.gate = Gate(None)
        self.shared: dict[str, Any] = {}  # further parts that all its workers share
        self.tokens: list[str] = []
        self.refuses: Callable[[str], bool] = lambda token: False
        provider.call = self._call

    def _furnish(self, c: Connection) -> None:
        url, now = self.provider.url, datetime.now(UTC)
        c.execute(update(provider_connections).values(api_url=url, token_url=f"{url}/token"))
        owner = get_connection(c, "gh")
        add_secret(
            c, seal_secret(self.house.vault, owner, id="s", name=CLIENT_SECRET, secret=Secret("client"), now=now)
        )

    def _call(self, token: str) -> Any:
        self.tokens.append(token)
        return REFUSED if self.refuses(token) else SAID

    def coordinator(self) -> Coordinator:
        """Another process's."""
        return put_together(
            self.house.database,
            self.house.vault,
            self.http,
            RefreshLock(self.redis, ttl=BUDGET.lock_ttl, token=lambda: secrets.token_hex(8)),
            PROFILES,
            clock=lambda: datetime.now(UTC),
            ids=partial(self.house.ids, "ref"),
            budget=BUDGET,
            gate=self.gate,
        )

    def work(
        self, job: str, settings: StepSettings = AS_SHIPPED, *, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.worker(settings, stopping=stopping).handle(job)

    def worker(
        self,
        settings: StepSettings = AS_SHIPPED,
        *,
        jobs: WorkerSettings | None = None,
        stopping: Callable[[], bool] = lambda: False,
        ring: Ring | None = None,
    ) -> Worker:
        services = Services(
            store=self.house.database,
            vault=self.house.vault,
            coordinator=self.coordinator(),
            upstream=Upstream(self.http),
            issuer=cast("Issuer", None),  # no capability is asked for
            ids=self.house.ids,
            settings=replace(settings, send_within=SEND_WITHIN),
            stopping=stopping,
            **{**_unshared(), **self.shared},
        )
        return Worker(services, Registry([self.house.workflow]), ring or MemoryRing(), jobs or WorkerSettings())

    def ada_connects_anew(self, *, login: str = "ada") -> None:
        """Through the flow of the pages, to its callback."""
        connect = connect_flow(self.house, self.http, SIGNER, base_url=self.provider.url)
        connecting = Connecting(self.house.database, connect, Registry([self.house.workflow]))
        now, browser = datetime.now(UTC), secrets.token_urlsafe(32)
        link = connect.start(AccountKey(tenant="acme", connection="gh", principal="acme.ada"), now=now)
        away = connecting.authorize(link.text, browser=browser, now=now)
        assert isinstance(away, Away), away
        (state,) = parse_qs(urlsplit(away.url).query)["state"]
        self.provider.user = {"id": 1001, "login": login}
        done = connecting.finish("gh", {"code": "code", "state": state}, browser=browser, now=now)
        assert isinstance(done, Done), done

    def generation(self) -> int:
        which = select(grants.c.generation).where(grants.c.account_id == ADA)
        return int(self.house.database.read(lambda c: c.execute(which).scalar_one()))

    def state(self) -> str:
        which = select(accounts.c.state).where(accounts.c.id == ADA)
        return str(self.house.database.read(lambda c: c.execute(which).scalar_one()))


def declare(workers: Workers, function: Callable[[Run[Any], Any], None]) -> None:
    """What the worker runs from now on, under the same name."""
    workers.house.workflow = replace(workers.house.workflow, function=function)


def say_and_sleep(run: Run[Any], event: Any) -> None:
    run.do(Say(text="before"), as_=run.user)
    run.sleep(HOUR)
    run.do(Say(text="after"), as_=run.user)


def wake(house: House) -> None:
    """What waits for a moment looks whether it has come."""
    now = update(jobs_table).where(jobs_table.c.state == JobState.WAITING).values(due_at=jobs_table.c.created_at)
    house.database.write(lambda c: c.execute(now).rowcount)
    reconcile.wake_due(house.database)
