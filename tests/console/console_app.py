"""A ledger with something of everything in it, and people of every role before the console."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, insert, select, update

from identity.connections.installations import add_installation
from identity.console import sessions
from identity.console.roles import Held, Role
from identity.console.sessions import Person, Via
from identity.console.sign_in import SignIn, SignInSettings
from identity.http.addresses import AddressPolicy
from identity.http.client import Client
from identity.keys.signing import Signer
from identity.model import Scope, ScopeKind
from identity.secret import Secret
from identity.sql.sequence import next_number
from identity.sql.store import Store
from identity.tables import accounts, provider_connections
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import WithdrawalState
from pipeline.accounts.invitations import Invitations
from pipeline.approvals.approving import Approving
from pipeline.authoring.registry import Registry
from pipeline.authoring.timetable import CatchUp, Timetable
from pipeline.db.database import Database, WithTurn
from pipeline.deliveries.intake import Intake
from pipeline.jobs import claims
from pipeline.revocation import declaration
from pipeline.schedules.changes import NewSchedule, add_schedule
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.tables import attempts, steps
from pipeline.tables import jobs as jobs_table
from pipeline.workflow import Tick, workflow
from tests.ledger.connect_flow import connect_flow
from tests.ledger.house import HOLD, House, Say, say_it
from tests.ledger.revokers import quiet_revoker
from tests.webhooks.parts import MemoryRing
from webhooks.app import create_app
from webhooks.console.door import csrf_of
from webhooks.console.parts import Console
from webhooks.settings import WebSettings


@workflow(agent="tester", event=Tick, uses={})
def tidy(run: Any, event: Tick) -> None:
    """Does nothing, on time."""


BASE = "http://127.0.0.1"


class ConsoleApp:
    """Tenants acme and globex; `at(role, tenant)` is a browser of somebody who has that role."""

    def __init__(
        self, database: Database, *, base_url: str = BASE, sign_in: SignIn | None = None, built: bool = False
    ) -> None:
        self.database = database
        self.house = House(database)
        if not built:
            self._build()
        self.workflows = Registry([say_it, tidy])
        self.ring = MemoryRing()
        self.signer = Signer.from_seed(bytes(32))
        self._http = Client(policy=AddressPolicy(allow_hosts=frozenset()), pool_size=1)
        self.parts = Console(
            store=database,
            ahead=WithTurn(database, ahead=True),
            workflows=self.workflows,
            ids=self.house.ids,
            public_key=self.signer.public_key(),
            invitations=self._invitations(base_url),
            approving=Approving(database, self.signer, base_url=base_url, lifetime=timedelta(minutes=15)),
            sign_in=sign_in,
        )
        self.app = self._app(self.parts, base_url)

    def _build(self) -> None:
        self.house.build()
        self.house.connect("globex", "globex.ada")
        install = partial(add_installation, owner="gh", external_id="77", tenant="acme", now=datetime.now(UTC))
        self.database.write(install)

    ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def close(self) -> None:
        self._http.close()

    def with_sign_in(self) -> Flask:
        """The same before a console whose people sign in at a provider: one that nobody here is sent to."""
        settings = SignInSettings(
            issuer="https://login.example", client_id="console", client_secret=Secret("s"), redirect_uri=f"{BASE}/back"
        )
        return self._app(replace(self.parts, sign_in=SignIn(settings, self._http)), BASE)

    def _app(self, console: Console, base_url: str) -> Flask:
        return create_app(
            WebSettings(base_url=base_url),
            Intake(self.database, self.house.vault, self.house.ids, clock=self.now),
            self.workflows,
            self.ring,
            approver=console.approving,
            console=console,
            clock=self.now,
        )

    def _invitations(self, base_url: str) -> Invitations:
        connect = connect_flow(self.house, self._http, self.signer, base_url=base_url)
        return Invitations(self.database, connect, self.workflows, self.house.ids, base_url=base_url)

    # People

    def session(self, *held: Held, name: str = "somebody", subject: str | None = None, via: Via = Via.OPENID) -> Secret:
        """The token of somebody who is signed in."""
        token, now = Secret(secrets.token_urlsafe(32)), self.now()
        person = Person(subject=subject or name, name=name, via=via, held=held)
        begin = partial(sessions.begin, token=token, person=person, audit_id=self.house.ids("aud"), now=now)
        self.database.write(partial(begin, lifetime=timedelta(hours=8)))
        return token

    def at(self, role: Role, tenant: str | None = None) -> Visit:
        """A browser of somebody who has that role, of one tenant or of everything."""
        return self.visit(Held(role=role, tenant=tenant), name=f"{role}@{tenant or 'all'}", subject=f"00u-{role}")

    def over(self, store: Store) -> Flask:
        """The same console before this store."""
        return self._app(replace(self.parts, store=store, ahead=store), BASE)

    def visit(self, *held: Held, name: str = "somebody", subject: str | None = None, app: Flask | None = None) -> Visit:
        """A browser of somebody who has these roles."""
        client = (app or self.app).test_client()
        token = self.session(*held, name=name, subject=subject)
        client.set_cookie("aswhom-console", token.reveal())
        return Visit(client)

    # Things

    def fill(self) -> dict[str, str]:
        """Something of everything in acme; the ids by what they are."""
        found = {
            "job": self.done(),
            "waiting": self.waiting(),
            "dead": self.dead("the provider answers 500"),
            "account": "acc-acme.ada",
            "connection": "gh",
            "schedule": self.schedule(),
        }
        found["delivery"] = self.house.row(found["job"]).delivery_id
        found["revocation"] = self.revoke(Scope(kind=ScopeKind.USER, key="globex.ada"), "globex")
        return found

    def done(self, *, tenant: str = "acme") -> str:
        """A job that was done, in one step with two attempts."""
        job = self.house.job(tenant=tenant)
        claimed, now, step = self.house.claim(job), datetime.now(UTC), self.house.ids("step")
        self._step(job, step, StepState.DONE, now, external_id="say-1", result={"id": "say-1"})
        for number, state, status in ((1, AttemptState.NO_EFFECT, 503), (2, AttemptState.EFFECT, 201)):
            self._attempt(job, step, number, state, status, now + timedelta(seconds=number))
        self.database.write(partial(claims.finish, job=claimed))
        return job

    def waiting(self, wait: Wait = Wait.CONSENT) -> str:
        job = self.house.job()
        park = partial(claims.park, job=self.house.claim(job), wait=wait, waits_for=None, due_in=HOLD, expires_in=HOLD)
        self.database.write(partial(park, reason="acme.ada has not connected gh"))
        return job

    def in_doubt(self, *, steps: int = 1) -> str:
        """A job that waits for a person's word about its one call; about one in each of so many steps."""
        job = self.waiting(Wait.UNKNOWN)
        for position in range(1, steps + 1):
            step, now = self.house.ids("step"), datetime.now(UTC)
            self._step(job, step, StepState.UNKNOWN, now, position=position)
            self._attempt(job, step, 1, AttemptState.UNKNOWN, None, now)
        return job

    def in_doubt_again(self, job: str) -> None:
        """Somebody said of that call that it had no effect, and what became of the next one is not known either."""
        waits = update(jobs_table).where(jobs_table.c.id == job).values(state=JobState.WAITING, wait=Wait.UNKNOWN)
        settled = update(attempts).where(attempts.c.job_id == job).values(state=AttemptState.NO_EFFECT, closed=1)
        for statement in (waits, settled):
            self.database.write(partial(Connection.execute, statement=statement))
        (step,) = self.rows(select(steps.c.id).where(steps.c.job_id == job))
        self._attempt(job, step.id, 2, AttemptState.UNKNOWN, None, datetime.now(UTC))

    def dead(self, reason: str, *, tenant: str = "acme", **delivery: Any) -> str:
        job = self.house.job(tenant=tenant, **delivery)
        self.database.write(partial(claims.bury, job=self.house.claim(job), reason=reason))
        return job

    def schedule(self) -> str:
        timetable = Timetable(cron="0 9 * * 1-5", zone="Europe/Berlin")
        wanted = NewSchedule(
            tenant="acme",
            name="morning",
            workflow=tidy,
            timetable=timetable,
            catch_up=CatchUp.ONCE,
            at_most=1,
            jitter=timedelta(),
        )
        self.database.write(lambda c: add_schedule(c, wanted, now=datetime.now(UTC)))
        return wanted.id

    def revoke(self, scope: Scope, tenant: str | None) -> str:
        """A revocation that has its receipt."""
        id = self.house.ids("rev")
        cause = declaration.Cause(source="test", by="test", reason="no")
        declare = partial(declaration.declare, scope=scope, cause=cause, id=id, tenant=tenant, now=datetime.now(UTC))
        self.database.write(declare)
        quiet_revoker(self.database, self.signer, self.workflows).advance(id)
        return id

    def stick(self, revocation: str, account: str = "acc-globex.ada") -> None:
        """The account's provider could not be asked to follow the revocation."""
        stuck = {
            "id": f"{account}.1", "account_id": account, "origin": "grant", "credential": "authorization_code",
            "generation": 1, "consented": 1, "state": WithdrawalState.STUCK, "tries": 9, "revocation_id": revocation,
            "due_at": self.now(), "created_at": self.now(),
        }  # fmt: skip
        self.database.write(lambda c: c.execute(insert(withdrawals), stuck))

    def stick_leftover(self, id: str, account: str = "acc-globex.ada") -> None:
        """A refused connect of that account had won what its provider could not be asked to end."""
        stuck = {
            "id": id, "account_id": account, "origin": "connect", "credential": "authorization_code",
            "generation": 0, "consented": 1, "state": WithdrawalState.STUCK, "tries": 9, "reason": "it answered 404",
            "due_at": self.now(), "created_at": self.now(),
        }  # fmt: skip
        self.database.write(lambda c: c.execute(insert(withdrawals), stuck))

    def lose(self, account: str) -> None:
        """The account needs its person again."""
        lost = update(accounts).where(accounts.c.id == account).values(state="needs_reconnect", reason="it was lost")
        self.database.write(lambda c: c.execute(lost))

    def pause(self, connection: str = "gh") -> None:
        paused = update(provider_connections).where(provider_connections.c.id == connection)
        self.database.write(lambda c: c.execute(paused.values(paused_reason="the provider refused our client")))

    def state(self, job: str) -> JobState:
        read = select(jobs_table.c.state).where(jobs_table.c.id == job)
        return JobState(self.database.read(lambda c: c.execute(read).scalar_one()))

    def rows(self, statement: Any) -> list[Any]:
        return list(self.database.read(lambda c: c.execute(statement).all()))

    def _step(self, job: str, step: str, state: StepState, now: datetime, **more: Any) -> None:
        row = {
            "id": step,
            "job_id": job,
            "position": 1,
            "action": Say.action_name(),
            "occurrence": 1,
            "named": "user",
            "principal_id": "acme.ada",
            "pattern": "delegated",
            "reason": "named by the workflow",
            "request_hash": "hash",
            "parameters": {"text": "a <secret> word"},
            "state": state,
            "opened_at": now,
            **more,
        }
        self.database.write(lambda c: c.execute(insert(steps), row))

    def _attempt(
        self, job: str, step: str, number: int, state: AttemptState, status: int | None, now: datetime
    ) -> None:
        def write(c: Connection) -> None:
            opened = next_number(c)
            c.execute(
                insert(attempts),
                {
                    "id": f"{step}.{number}",
                    "step_id": step,
                    "job_id": job,
                    "number": number,
                    "purpose": "call",
                    "state": state,
                    "opened": opened,
                    "closed": None if state is AttemptState.UNKNOWN else next_number(c),
                    "tenant_id": "acme",
                    "connection_id": "gh",
                    "agent_id": "tester",
                    "principal_id": "acme.ada",
                    "account_id": "acc-acme.ada",
                    "generation": 1,
                    "fence": 1,
                    "opened_at": now,
                    "send_before": now,
                    "settled_by": now,
                    "closed_at": now + timedelta(milliseconds=180),
                    "status": status,
                    "upstream_request_id": f"req-{number}",
                    "error": "the upstream is down" if status == 503 else None,
                },
            )

        self.database.write(write)


class Visit:
    """One browser, without the browser."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def sees(self, path: str) -> str:
        """The page at *path*, which must be there."""
        answer = self.client.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.text

    def sends(self, path: str, **form: str) -> Any:
        """The answer to a form of a page that this browser was shown."""
        answer = self.client.post(path, data={"csrf": self.token, **form})
        answer.get_data()
        answer.close()  # as the server does: bells are rung then
        return answer

    @property
    def token(self) -> str:
        cookie = self.client.get_cookie("aswhom-console")
        assert cookie is not None
        return csrf_of(Secret(cookie.value))
