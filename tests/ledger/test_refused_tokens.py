"""Tokens that an upstream refuses, and refreshes that must wait: the whole step, over real HTTP, on each database."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import pytest
from sqlalchemy import Connection, event, func, select, update

from identity.addresses import AddressPolicy
from identity.audit_tables import audit
from identity.capability.issuer import Issuer
from identity.connections import CLIENT_SECRET, add_secret, get_connection, seal_secret
from identity.coordinator import Coordinator, RefreshBudget
from identity.gate import Endpoint, Gate
from identity.http import Client
from identity.leases import examine
from identity.lock import RefreshLock
from identity.model import AccountState, Credential, Leased
from identity.providers import PROFILES
from identity.secret import Secret
from identity.tables import accounts, grants, provider_connections, scopes
from pipeline.database import DatabaseSettings
from pipeline.runtime import Keys, Runtime, RuntimeSettings
from pipeline.services import Services, StepSettings
from pipeline.states import JobState, Wait
from pipeline.upstream import Upstream
from pipeline.worker import Worker, WorkerSettings
from pipeline.workflow import Registry
from tests.identity.providers import PretendProvider, pretend_provider, reply
from tests.ledger.house import House
from tests.ledger.house import intent_of as intent

ADA = "acc-acme.ada"
SAID = reply({"id": "7"})
REFUSED = reply({"message": "Bad credentials"}, 401)


class Office:
    """Workers of one installation, an upstream that may refuse tokens, and a token endpoint that rotates."""

    def __init__(self, house: House, provider: PretendProvider, http: Client) -> None:
        self.house, self.provider, self.http = house, provider, http
        house.database.write(self._furnish)
        self.gate = Gate(None)
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
        return Coordinator(
            self.house.database,
            self.house.vault,
            self.http,
            RefreshLock(None, ttl=timedelta(seconds=60), token=lambda: secrets.token_hex(8)),
            PROFILES,
            clock=lambda: datetime.now(UTC),
            ids=partial(self.house.ids, "ref"),
            budget=RefreshBudget(poll=timedelta(milliseconds=10)),
            gate=self.gate,
        )

    def work(self, job: str) -> None:
        services = Services(
            store=self.house.database,
            vault=self.house.vault,
            coordinator=self.coordinator(),
            upstream=Upstream(self.http),
            issuer=cast("Issuer", None),  # no capability is asked for
            ids=self.house.ids,
            settings=StepSettings(),
        )
        Worker(services, Registry([self.house.workflow]), Silence(), WorkerSettings()).handle(job)

    def generation(self) -> int:
        which = select(grants.c.generation).where(grants.c.account_id == ADA)
        return int(self.house.database.read(lambda c: c.execute(which).scalar_one()))

    def state(self) -> str:
        which = select(accounts.c.state).where(accounts.c.id == ADA)
        return str(self.house.database.read(lambda c: c.execute(which).scalar_one()))


class Silence:
    """Rings nobody."""

    def jobs(self, bells: Any) -> bool:
        return True

    def revocations(self, ids: Any) -> None: ...


@pytest.fixture
def office(house: House) -> Iterator[Office]:
    policy = AddressPolicy(allow_hosts=frozenset({"127.0.0.1"}))
    with pretend_provider() as provider, Client(policy=policy, pool_size=16) as http:
        yield Office(house, provider, http)


def test_a_token_that_anothers_refresh_killed_is_replaced_and_not_refreshed(office: Office) -> None:
    """GitHub's rule: a refresh kills the access token in everybody's hands."""

    def killed(token: str) -> bool:
        if office.generation() == 1:
            office.coordinator().refresh(ADA, after_generation=1)
        return token == "token-acme.ada-1"

    office.refuses = killed
    job = office.house.job()
    office.work(job)
    assert office.house.row(job).state == JobState.DONE
    assert office.tokens == ["token-acme.ada-1", "access-1"]
    assert office.provider.presented.total() == 1
    assert office.state() == AccountState.ACTIVE


def test_a_row_of_tokens_that_others_refreshes_killed_is_no_death(office: Office) -> None:
    def killed(token: str) -> bool:
        generation = office.generation()
        if generation < 4:
            office.coordinator().refresh(ADA, after_generation=generation)
        return token != "access-3"

    office.refuses = killed
    job = office.house.job()
    office.work(job)
    assert office.house.row(job).state == JobState.DONE
    assert office.tokens == ["token-acme.ada-1", "access-1", "access-2", "access-3"]
    assert (office.generation(), office.state()) == (4, AccountState.ACTIVE)


def test_of_many_workers_whose_token_is_refused_one_refreshes(office: Office) -> None:
    workers = 6
    together = threading.Barrier(workers)

    def refused(token: str) -> bool:
        if token != "token-acme.ada-1":
            return False
        together.wait(30)
        return True

    office.refuses = refused
    jobs = [office.house.job() for _ in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(office.work, jobs))
    assert {office.house.row(job).state for job in jobs} == {JobState.DONE}
    assert office.provider.presented == {"refresh-acme.ada-1": 1}
    assert (office.generation(), office.state()) == (2, AccountState.ACTIVE)


def test_what_is_refused_after_a_forced_refresh_waits_for_a_person_and_revokes_nothing(office: Office) -> None:
    office.refuses = lambda token: True
    job = office.house.job()
    office.work(job)
    row = office.house.row(job)
    assert (row.state, row.wait, row.runs_spent) == (JobState.WAITING, Wait.CONSENT, 0)
    assert office.tokens == ["token-acme.ada-1", "access-1"]
    assert office.provider.presented.total() == 1
    assert (office.generation(), office.state()) == (2, AccountState.NEEDS_RECONNECT)
    database = office.house.database
    assert database.read(lambda c: c.execute(select(func.count()).select_from(scopes)).scalar_one()) == 0
    kinds = database.read(lambda c: c.execute(select(audit.c.kind, audit.c.generation)).all())
    assert ("grant.refused", 2) in {(kind, generation) for kind, generation in kinds}
    office.house.connect("acme", "acme.ada")
    office.refuses = lambda token: False
    other = office.house.job()
    office.work(other)
    assert office.house.row(other).state == JobState.DONE


def test_what_waits_for_an_account_that_a_late_answer_brings_back_goes_on(office: Office, ledger_url: str) -> None:
    past = [timedelta()]
    settings = RuntimeSettings(
        database=DatabaseSettings(url=ledger_url),
        keys=Keys(vault={1: b"k" * 32}, signing=b"s" * 32),
        base_url="http://127.0.0.1:1",
        allow_hosts=frozenset({"127.0.0.1"}),
    )
    runtime = Runtime(settings, Registry([office.house.workflow]), Silence(), clock=lambda: datetime.now(UTC) + past[0])
    job = office.house.job()
    seen: list[Any] = []

    def given_up_meanwhile(form: dict[str, str]) -> Any:
        past[0] = timedelta(minutes=1)
        assert runtime.coordinator.settle_abandoned() == 1
        office.work(job)
        seen.append((office.state(), office.house.row(job).wait))
        return office.provider.rotate(form)

    office.provider.answer = given_up_meanwhile
    try:
        assert runtime.coordinator.refresh(ADA, after_generation=1) == 2
    finally:
        runtime.close()
    assert seen == [(AccountState.NEEDS_RECONNECT, Wait.CONSENT)]
    assert (office.state(), office.house.row(job).state) == (AccountState.ACTIVE, JobState.QUEUED)
    office.work(job)
    assert office.house.row(job).state == JobState.DONE


def test_a_refresh_over_the_pace_sends_the_job_back_with_a_date_and_spends_no_run(office: Office) -> None:
    office.house.database.write(lambda c: c.execute(update(grants).values(expires_at=datetime.now(UTC))).rowcount)
    owner = office.house.database.read(lambda c: get_connection(c, "gh"))
    office.gate.hold(Endpoint.of(owner, Credential.AUTHORIZATION_CODE), timedelta(hours=1))
    job = office.house.job()
    office.work(job)
    row = office.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.due_at - datetime.now(UTC) > timedelta(minutes=55)
    assert office.provider.presented.total() == 0
    assert (office.generation(), office.state()) == (1, AccountState.ACTIVE)


def test_a_token_that_still_lives_serves_while_its_endpoint_must_be_left_alone(office: Office) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=2)  # GitHub's are renewed ten minutes ahead
    office.house.database.write(lambda c: c.execute(update(grants).values(expires_at=soon)).rowcount)
    owner = office.house.database.read(lambda c: get_connection(c, "gh"))
    office.gate.hold(Endpoint.of(owner, Credential.AUTHORIZATION_CODE), timedelta(hours=1))
    job = office.house.job()
    office.work(job)
    assert office.house.row(job).state == JobState.DONE
    assert office.tokens == ["token-acme.ada-1"]
    assert office.provider.presented.total() == 0


def test_a_lease_is_one_select_and_no_redis(house: House) -> None:
    """It takes the caller's connection and nothing else: there is no Redis that it could ask."""
    request = intent(house, house.claim(house.job())).lease

    def count(c: Connection) -> tuple[Any, list[str]]:
        statements: list[str] = []

        def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement)

        event.listen(c, "before_cursor_execute", note)
        return examine(c, request), statements

    outcome, statements = house.database.read(count)
    assert isinstance(outcome, Leased)
    assert [statement.split()[0] for statement in statements if statement != "BEGIN"] == ["SELECT"]
