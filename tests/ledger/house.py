"""The people, connections and accounts the ledger's tests are about."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

from sqlalchemy import Connection, Row, select, update

from identity.accounts.grants import get_grant, seal_answer
from identity.accounts.states import find_account
from identity.connect.consent_ledger import Consent, Consented, store_consent
from identity.connect_sessions.sessions import ConnectSession, add_session
from identity.connections.installations import add_installation
from identity.connections.registry import add_connection, get_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.ids import Ids
from identity.keys.vault import Vault
from identity.model import (
    AccessPattern,
    AccountKey,
    Credential,
    Effect,
    LeaseRequest,
    PrincipalKind,
    ProviderConnection,
    Scope,
    ScopeKind,
    TokenAnswer,
)
from identity.policy.decision import Decision
from identity.principals import ensure_principal, ensure_tenant, link_alias
from identity.secret import Secret
from identity.sql.sequence import next_number
from pipeline.action import Action, Call, Facts, Recovery, Request, Response, Result
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.matching import Match
from pipeline.db.database import Database
from pipeline.deliveries import acceptance
from pipeline.jobs import claims
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.intents import Intent
from pipeline.model import Acceptance, DeliveryOutcome, SignedDelivery
from pipeline.states import Purpose
from pipeline.tables import jobs as jobs_table
from pipeline.tables import workflow_settings
from pipeline.workflow import SERVICE, USER, Event, ExternalUser, Trigger, workflow

HOLD = timedelta(seconds=60)
AS_ADA = Decision(kind=PrincipalKind.USER, pattern=AccessPattern.DELEGATED, reason="named by the workflow")


class Said(Result):
    id: str


class Say(Action[Said]):
    """An action of the tests: says something at GitHub."""

    facts: ClassVar[Facts] = Facts(
        provider="github", scopes=frozenset(), effect=Effect.WRITE, attribution=False, recovery=Recovery.IDEMPOTENT
    )
    text: str

    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/say", json={"text": self.text, "marker": call.marker})

    def read(self, response: Response) -> Said:
        return Said.model_validate(response.json())


class Opened(Event):
    author: str = "1001"
    text: str = "hello"


@workflow(
    agent="tester",
    event=Opened,
    on=Trigger(source="github", event="pull_request", read=Opened.model_validate),
    user=lambda event: ExternalUser(provider="github", id=event.author, login="ada"),
    triggered_by=lambda event: ExternalUser(provider="github", id=event.author, login="ada"),
    uses={Say: USER | SERVICE},
)
def say_it(run: Any, event: Opened) -> None:
    run.do(Say(text=event.text), as_=run.user)


class House:
    """A small world in a ledger. Principals: `acme.service` and `acme.ada`; connection: `gh`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.vault = Vault({1: b"k" * 32}, secrets.token_bytes)
        self.ids = Ids()
        self.workflow: Workflow = say_it
        self._addresses: dict[str, str] = {}

    def build(self) -> None:
        now = datetime.now(UTC)
        for tenant in ("acme", "globex"):
            self.database.write(partial(self._tenant, tenant=tenant, now=now))
        for tenant, name, kind in (
            ("acme", "ada", Credential.AUTHORIZATION_CODE),
            ("acme", "service", Credential.STATIC),
        ):
            self.connect(tenant, f"{tenant}.{name}", credential=kind)

    def _tenant(self, c: Connection, *, tenant: str, now: datetime) -> None:
        ensure_tenant(c, id=tenant, name=tenant, now=now)
        service, person = f"{tenant}.service", f"{tenant}.ada"
        ensure_principal(c, id=service, tenant=tenant, kind=PrincipalKind.SERVICE, name="service", now=now)
        ensure_principal(c, id=person, tenant=tenant, kind=PrincipalKind.USER, name="ada", now=now)
        link_alias(
            c,
            tenant=tenant,
            provider="github",
            external_id="1001",
            principal=person,
            login="ada",
            made_by="admin:test",
            now=now,
        )
        owner = ProviderConnection(
            id="gh",
            tenant=None,
            provider="github",
            client_id="client",
            scopes=(),
            api_url="http://127.0.0.1:1",
            authorize_url="http://127.0.0.1:1/authorize",
            token_url="http://127.0.0.1:1/token",
        )
        add_connection(c, owner, now=now)
        add_installation(c, owner="gh", external_id=f"installation-{tenant}", tenant=tenant, now=now)
        c.execute(
            workflow_settings.insert().values(tenant_id=tenant, workflow=self.workflow.name, enabled=True, config={})
        )

    def give_secret(self, connection: str) -> None:
        """By which codes can be exchanged there: without one no link is made."""

        def give(c: Connection) -> None:
            owner, now = get_connection(c, connection), datetime.now(UTC)
            id, secret = f"secret-{connection}", Secret("client")
            add_secret(c, seal_secret(self.vault, owner, id=id, name=CLIENT_SECRET, secret=secret, now=now))

        self.database.write(give)

    def connect(
        self,
        tenant: str,
        principal: str,
        *,
        credential: Credential = Credential.AUTHORIZATION_CODE,
        lasts: timedelta = HOLD * 60,
        through: str = "gh",
    ) -> str:
        """Store a consent as of now, and return the account."""
        key = AccountKey(tenant=tenant, connection=through, principal=principal)
        now = datetime.now(UTC)

        def consent(c: Connection) -> str:
            number = next_number(c)
            known = find_account(c, key)
            account = known.id if known else f"acc-{principal}" if through == "gh" else f"acc-{through}.{principal}"
            former = get_grant(c, account)
            generation = former.generation + 1 if former else 1
            answer = TokenAnswer(
                access_token=Secret(f"token-{principal}-{generation}"),
                refresh_token=Secret(f"refresh-{principal}-{generation}"),
                expires_at=now + lasts,
                scopes=(),
                token_type="bearer",
            )
            sealed = seal_answer(
                self.vault, answer, tenant=tenant, account=account, provider="github", generation=generation
            )
            stored = store_consent(
                c,
                Consent(
                    id=account, key=key, provider="github", credential=credential, consented=number, external_id="1001"
                ),
                sealed,
                now=now,
            )
            assert isinstance(stored, Consented), stored
            return stored.account

        return self.database.write(consent)

    def delivery(
        self, delivery_id: str, *, text: str = "hello", tenant: str = "acme", author: str = "1001", **more: Any
    ) -> SignedDelivery:
        document = {"author": author, "text": text}
        fields: dict[str, Any] = {
            "source": "github",
            "connection": "gh",
            "delivery_id": delivery_id,
            "event": "pull_request",
            "body": json.dumps({**document, "tenant": tenant}).encode(),
            "document": document,
            "installation": f"installation-{tenant}",
            "dedupe_by_body": True,
        }
        return SignedDelivery(**{**fields, **more})

    def accept(
        self, delivery: SignedDelivery, *, now: datetime | None = None, job: str = "", due: datetime | None = None
    ) -> Acceptance:
        """*job*: the id that its job gets, else a new one; *due*: when it falls due, else at once, with its bell."""
        event = Opened.model_validate(delivery.document)
        matches = [] if delivery.signal else [self._match(event)]
        ids = acceptance.NewIds(
            delivery=self.ids("del"), jobs=tuple(job or self.ids("job") for _ in matches), revocation=self.ids("rev")
        )
        accept = partial(
            acceptance.accept,
            delivery=delivery,
            matches=matches,
            ids=ids,
            outcome=DeliveryOutcome.IGNORED,
            reason="",
            now=now or datetime.now(UTC),
        )

        def write(c: Connection) -> Acceptance:
            accepted = accept(c)
            if due is not None:
                c.execute(
                    update(jobs_table).where(jobs_table.c.id.in_(accepted.jobs)).values(due_at=due, rung_until=None)
                )
            return accepted

        return self.database.write(write)

    def _match(self, event: Opened) -> Match:
        user = ExternalUser(provider="github", id=event.author, login="ada")
        document = event.model_dump(mode="json")
        return Match(workflow=self.workflow, event=event, document=document, user=user, triggered_by=user)

    def job(self, delivery_id: str = "", **fields: Any) -> str:
        """Accept one job, and return its id."""
        key = delivery_id or secrets.token_hex(8)
        accepted = self.accept(self.delivery(key, text=fields.pop("text", key), **fields))
        (job,) = accepted.jobs
        return job

    def claim(self, job: str, *, claim_for: timedelta = HOLD) -> ClaimedJob:
        claimed = self.database.write(partial(claims.claim, job=job, claim_for=claim_for))
        assert claimed is not None
        return claimed

    def address_of(self, through: str) -> str:
        """Where the API of a connection is: read once, as a run reads it."""
        if through not in self._addresses:
            self._addresses[through] = self.database.read(lambda c: get_connection(c, through)).api_url
        return self._addresses[through]

    def row(self, job: str) -> Row[Any]:
        return self.database.read(lambda c: c.execute(select(jobs_table).where(jobs_table.c.id == job)).one())

    def states(self) -> Mapping[str, str]:
        return self.database.read(
            lambda c: {row.id: row.state for row in c.execute(select(jobs_table.c.id, jobs_table.c.state))}
        )


def begin_connecting(house: House, key: AccountKey, *, lasts: timedelta = timedelta(hours=1)) -> str:
    """Somebody opened a link for this account, and is at the provider; the session's id."""
    id = house.ids("con")

    def begin(c: Connection) -> None:
        now = datetime.now(UTC)
        session = ConnectSession(
            id=id,
            key=key,
            state_hash=secrets.token_hex(),
            started=next_number(c),
            scopes=(),
            verifier_sealed=b"",
            browser_hash=None,
            expires_at=now + lasts,
            finished_at=None,
            created_at=now,
        )
        add_session(c, session)

    house.database.write(begin)
    return id


def account_scope(principal: str = "acme.ada", tenant: str = "acme") -> Scope:
    return Scope(kind=ScopeKind.ACCOUNT, key=f"{tenant}/gh/{principal}")


def intent_of(house: House, job: ClaimedJob, *, step: str = "", once: str | None = None, **more: Any) -> Intent:
    """What opens the job's first step as ada; *more* says what is otherwise."""
    through = more.setdefault("connection", "gh")
    base = Intent(
        step=step or house.ids("step"),
        attempt=house.ids("att"),
        job=job,
        position=1,
        action="github.Say",
        occurrence=1,
        named="user",
        decision=AS_ADA,
        principal="acme.ada",
        provider="github",
        connection=through,
        api_url=house.address_of(through),
        new_account=house.ids("acc"),
        request_hash="hash",
        parameters={"text": "hello"},
        once=once,
        purpose=Purpose.CALL,
        repeats_unknown=False,
        lease=LeaseRequest(
            tenant="acme",
            connection="gh",
            agent="tester",
            principal="acme.ada",
            accepted=job.accepted,
            scopes=frozenset(),
        ),
        send_within=timedelta(seconds=5),
        deadline=timedelta(seconds=20),
        consent_wait=timedelta(days=14),
    )
    return replace(base, **more)
