"""A trial: installed workflows run against the sandbox, and only when the test lets them."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
from sqlalchemy import Connection, Row, select

from deploy import process
from deploy.demo import page_form
from deploy.demo.people import NotConnected
from deploy.demo.provision import Provision
from deploy.sandbox.__main__ import SERVICES
from deploy.settings import load
from deploy.trial.job import TrialJob, read_jobs
from deploy.trial.passing import time_passes
from deploy.trial.upstreams import Upstreams, upstreams
from identity.audit import Act
from identity.errors import BadInput, Unavailable
from identity.model import AccountKey, ScopeKind
from identity.principals import link_alias
from identity.providers import PROFILES, profile_of
from identity.secret import Secret
from pipeline.accounts.connecting import Done
from pipeline.approvals.tables import approvals
from pipeline.approvals.views import approval
from pipeline.approvals.votes import Channel, NotCounted, Vote
from pipeline.db.database import DatabaseSettings, open_database
from pipeline.desk.scopes import named_scope
from pipeline.desk.workflows import enable
from pipeline.duties.reconcile import advance_revocations
from pipeline.events import Tick
from pipeline.jobs import pins
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.migrations import upgrade
from pipeline.model import DeliveryOutcome, SignedDelivery
from pipeline.policy.change import put_in_force
from pipeline.revocation import declaration
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.states import ApprovalState, JobState
from pipeline.tables import attempts
from pipeline.throttle.breaker_state import HostBreaker
from pipeline.upkeep import duties_of

BASE_URL = "http://127.0.0.1:1"  # nothing listens there: callbacks are read from the redirect
ROUNDS = 80  # at most, in `settle`
NEVER_OPEN = HostBreaker(threshold=1_000_000)  # a breaker waits in real time, and here time passes only in the ledger


class NoRing:
    """A ring that rings nobody: the trial itself looks for due jobs."""

    def jobs(self, bells: object) -> bool:
        return False

    def revocations(self, ids: object) -> None: ...

    def unheard(self, queue: str) -> int:
        return 0


class Trial:
    """A context. Its tenants and people are the sandbox's (`deploy.sandbox.world`), for example ada of acme."""

    def __init__(self, folder: Path) -> None:
        """Use *folder*, which must be empty, for the ledger and the upstreams' logs."""
        self._folder = folder
        self._closing = ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            self.upstreams: Upstreams = closing.enter_context(upstreams(self._folder, base_url=BASE_URL))
            database = DatabaseSettings(url=f"sqlite:///{self._folder / 'ledger.db'}")
            ledger = open_database(database)
            upgrade(ledger)
            ledger.close()
            settings = RuntimeSettings(
                database=database,
                keys=Keys(vault={1: secrets.token_bytes(32)}, signing=secrets.token_bytes(32)),
                base_url=BASE_URL,
                allow_hosts=frozenset({"127.0.0.1"}),
                breaker=NEVER_OPEN,
            )
            self.runtime = Runtime(settings, process.workflows(load(data_dir=self._folder)), NoRing())
            closing.callback(self.runtime.close)
            Provision(self.runtime, self.upstreams.world, now=datetime.now(UTC)).everything()
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    # Acts of people and senders

    def enable(self, workflow: str, tenant: str, config: Mapping[str, Any] | None = None) -> None:
        """Switch a workflow on for a tenant, as `aswhom workflows enable` does."""
        declared = self.runtime.workflows.get(workflow)
        on = partial(enable, tenant=tenant, workflow=declared, act=self._act(), config=config or {})
        self.runtime.database.write(on)

    def policy(self, tenant: str, text: str) -> None:
        """Put a tenant's policy into force, as `aswhom policy apply` does."""
        self.runtime.database.write(partial(put_in_force, tenant=tenant, text=text, act=self._act(), over=None))

    def own_upstream(self, provider: str, tenant: str, *, url: str, key: str, scopes: tuple[str, ...] = ()) -> None:
        """Register your own server on 127.0.0.1, where the tenant's service acts by *key*, which has *scopes*.

        The connection's id is `PROVIDER-TENANT`. Raise Misconfigured for an unknown provider.
        """
        profile_of(PROFILES, provider)
        Provision(self.runtime, self.upstreams.world, now=datetime.now(UTC)).by_key(
            provider, tenant, scopes, url, Secret(key)
        )

    def alias(self, tenant: str, login: str) -> None:
        """Link a GitHub user to a person of the tenant as an admin would, without a connect."""
        (user,) = [user for user in self.upstreams.world["github"]["users"] if user["login"] == login]
        link = partial(
            link_alias,
            tenant=tenant,
            provider="github",
            external_id=str(user["id"]),
            principal=f"{tenant}.{login}",
            login=login,
            made_by="admin:trial",
            now=datetime.now(UTC),
        )
        self.runtime.database.write(link)

    def connect(self, tenant: str, login: str, through: str) -> None:
        """Connect a person's account on the provider's page. *through* is a connection's id, such as `github`.

        Raise NotConnected.
        """
        key = AccountKey(tenant=tenant, connection=through, principal=f"{tenant}.{login}")
        browser, now = secrets.token_urlsafe(32), datetime.now(UTC)
        link = self.runtime.connect_flow.start(key, now=now)
        url = self.runtime.connect_flow.authorize(link.text, browser=browser, now=now)
        page = self.upstreams.http.get(str(url)).text
        action = page_form.action(page)
        if action is None:
            raise NotConnected(f"{key} has no consent page: {url}")
        said = {**page_form.hidden(page), "user": login, "decision": "allow"}
        answer = self.upstreams.http.post(self.upstreams.url("auth", action), data=said)
        back = dict(httpx.URL(answer.headers["location"]).params)
        ended = self.runtime.connecting.finish(through, back, browser=browser, now=datetime.now(UTC))
        if not isinstance(ended, Done):
            raise NotConnected(f"{key} is not connected: {ended}")

    def pull_request(self, repo: str, author: str, *, labels: tuple[str, ...] = (), title: str = "A change") -> int:
        """Open a pull request and deliver GitHub's event for it. Return its number."""
        asked = {"repo": repo, "author": author, "title": title, "labels": list(labels)}
        opened = self.upstreams.order("github", "pulls", hold=True, **asked)
        for guid in opened["deliveries"]:
            document = self.upstreams.read("github", f"deliveries/{guid}")["request"]["payload"]
            self.deliver("github", "pull_request", document, installation=str(document["installation"]["id"]))
        return int(opened["number"])

    def deliver(
        self,
        source: str,
        event: str,
        document: Mapping[str, Any],
        *,
        through: str = "",
        installation: str | None = None,
    ) -> tuple[str, ...]:
        """Accept a delivery as if its signature were valid. Return the jobs it started."""
        delivery = SignedDelivery(
            source=source,
            connection=through or source,
            delivery_id=f"trial-{next(self._numbers)}",
            event=event,
            body=b"{}",
            document=document,
            installation=installation,
            dedupe_by_body=False,
        )
        matches = self.runtime.workflows.match(source, event, document)
        return self.runtime.intake.accept(delivery, matches, outcome=DeliveryOutcome.IGNORED, reason="").jobs

    def tick(self, workflow: str, tenant: str, *, schedule: str = "") -> str:
        """Fire a schedule now, whatever its cron line says, and return the job. Raise BadInput.

        It is the workflow's own schedule, or the tenant's named *schedule*.
        """
        declared, now = self.runtime.workflows.get(workflow), datetime.now(UTC)
        if not issubclass(Tick, declared.event):
            raise BadInput(f"no schedule starts {workflow}, which takes {declared.event.__name__}: `deliver` one")
        job, event = self.runtime.ids("job"), Tick(slot=now.isoformat(), schedule=schedule or workflow)

        def start(c: Connection) -> None:
            config = pins.enabled(c, tenant, workflow)
            if config is None:
                raise BadInput(f"workflow {workflow} is not switched on for {tenant}: `enable` it")
            made = event.model_dump(mode="json")
            insert_job(c, NewJob(id=job, tenant=tenant, workflow=declared, event=made, config=config), now=now)

        self.runtime.database.write(start)
        return job

    def revoke(self, kind: str, key: str, *, tenant: str | None = None) -> str:
        """Revoke, for example `revoke("user", "ada", tenant="acme")`, and return the revocation's id.

        It works as `aswhom revoke` does, and is effective immediately. Its consequences follow with the next `settle`.
        Raise BadInput.
        """
        if kind not in list(ScopeKind):
            *others, last = ScopeKind
            raise BadInput(f"{kind!r} cannot be revoked: {', '.join(others)} or {last} can")
        id, now = self.runtime.ids("rev"), datetime.now(UTC)

        def declare(c: Connection) -> None:
            scope, whose = named_scope(c, self.runtime.workflows, ScopeKind(kind), key, tenant=tenant)
            cause = declaration.Cause(source="cli", by="admin:trial", reason="the trial's")
            declaration.declare(c, scope, cause, id=id, tenant=whose, now=now)

        self.runtime.database.write(declare)
        return id

    def answer(self, job: str, login: str, *, yes: bool) -> None:
        """Answer the approval that a job waits for, as a person of the tenant. Raise BadInput if it does not count."""
        asked = select(approvals.c.id).where(approvals.c.job_id == job, approvals.c.state == ApprovalState.OPEN)
        found = self._rows(asked)
        view = self.runtime.database.read(lambda c: approval(c, found[0].id)) if found else None
        if view is None:
            raise BadInput(f"job {job} waits for no approval")
        given = Vote(
            approval=view.id,
            tenant=view.tenant,
            principal=f"{view.tenant}.{login}",
            yes=yes,
            digest=view.digest,
            channel=Channel.PAGE,
            said_as="admin:trial",
        )
        answered = self.runtime.approving.vote(given, now=datetime.now(UTC))
        if isinstance(answered, NotCounted):
            raise BadInput(f"the answer of {login} does not count: {answered.reason}")

    def _act(self) -> Act:
        return Act(audit_id=self.runtime.ids("aud"), by="admin:trial", now=datetime.now(UTC))

    # Work and its effects

    def work(self, workflow: str) -> list[TrialJob]:
        """Run every due job once, and return the jobs of *workflow*. No time passes, so sleeping jobs sleep on."""
        for job in self._jobs():
            if job.state == JobState.QUEUED:
                self.runtime.worker.handle(job.id)
        return [job for job in self._jobs() if job.workflow == workflow]

    def settle(self, workflow: str, *, rounds: int = ROUNDS) -> list[TrialJob]:
        """Let work run and time pass until every job has ended or waits for a person. Return the jobs of *workflow*.

        Raise Unavailable if some are still moving after *rounds*.
        """
        duties = {duty.name: duty for duty in duties_of(self.runtime)}
        for _ in range(rounds):
            advance_revocations(self.runtime.revoker, idle=timedelta())
            found = self.work(workflow)
            if all(job.at_rest for job in self._jobs()):
                return found
            self.runtime.database.write(time_passes)
            for name in ("reclaim", "settle-attempts", "wake"):
                duties[name].run()
        moving = [job.id for job in self._jobs() if not job.at_rest]
        raise Unavailable(f"after {rounds} rounds of work, these still move: {', '.join(moving)}")

    def writes(self, job: str) -> list[tuple[str, str]]:
        """Return a job's changes from the upstreams' own logs: the upstream, and the actor in its words."""
        made = {attempt.id for attempt in self._rows(select(attempts.c.id).where(attempts.c.job_id == job))}
        log = [entry for name in SERVICES for entry in self.upstreams.read(name, "log")]
        effects = [entry for entry in log if entry["effect"] and entry["attempt"] in made]
        return [
            (entry["upstream"], str(entry["actor"])) for entry in sorted(effects, key=lambda entry: str(entry["at"]))
        ]

    def _jobs(self) -> list[TrialJob]:
        return self.runtime.database.read(read_jobs)

    def _rows(self, statement: Any) -> list[Row[Any]]:
        return list(self.runtime.database.read(lambda c: c.execute(statement).all()))
