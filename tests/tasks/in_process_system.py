"""The runtime of a worker in this process, among all the pretend upstreams: what a workflow's faults are tried in.

Time is made to pass in the ledger: what waits until a moment waits no longer, so nothing here waits for a clock.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
from sqlalchemy import Row, select, update

from deploy.demo.provision import SALESFORCE, Provision, linear_of, standard_of
from deploy.trial.passing import time_passes
from deploy.trial.trial import NEVER_OPEN, NoRing
from identity.model import AccountKey, Scope, ScopeKind
from identity.secret import Secret
from pipeline import revocation
from pipeline.accounts.connecting import Done
from pipeline.database import DatabaseSettings
from pipeline.model import Acceptance, DeliveryOutcome, SignedDelivery
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.services import StepSettings
from pipeline.states import ENDED, FOR_A_PERSON, JobState
from pipeline.tables import attempts, jobs, schedules, steps
from pipeline.workflow import Registry
from tests.killed import Killed
from tests.ledgers import TURN
from tests.sandbox.driver import Form, Sandbox

WORKFLOWS = (
    "tasks.devops_assistant",
    "tasks.daily_digest",
    "tasks.slack_mention",
    "tasks.billing_reconciliation",
    "tasks.crm_update",
    "tasks.support_tickets",
    "tasks.link_command",
    "tasks.merged_pull_request",
    "tasks.review_request",
    "tasks.slack_command",
    "tasks.ask_in_slack",
)
BASE_URL = "http://127.0.0.1:1"  # where callbacks would come back to: they are read from the redirect instead
ROUNDS = 80  # of a settlement: more than any fault here costs


class InProcessSystem:
    """One ledger with the world's tenants in it. Nothing runs but what a test lets run."""

    def __init__(
        self,
        sandbox: Sandbox,
        database_url: str,
        *,
        workflows: tuple[str, ...] = WORKFLOWS,
        base_url: str = BASE_URL,
        redis_url: Secret | None = None,
    ) -> None:
        """*database_url*: a migrated ledger, empty or furnished before."""
        self.sandbox = sandbox
        self._then: dict[tuple[str, int], Callable[[], object]] = {}
        self._arrived: Counter[str] = Counter()
        self._last = ""
        self.ahead = timedelta()  # the runtime's clock
        self._numbers = itertools.count(1)
        self.registry = Registry.load(workflows)
        keys = Keys(vault={1: b"k" * 32}, signing=b"s" * 32)
        settings = RuntimeSettings(
            database=DatabaseSettings(url=database_url, turn_timeout=TURN),
            keys=keys,
            base_url=base_url,
            redis_url=redis_url,
            allow_hosts=frozenset({"127.0.0.1"}),
            steps=StepSettings(attempts=4),
            breaker=NEVER_OPEN,
        )
        self.runtime = Runtime(settings, self.registry, NoRing(), clock=self.clock, reached=self._reached)

    def furnish(self) -> None:
        """Register the world's tenants."""
        Provision(self.runtime, self.sandbox.world, now=datetime.now(UTC)).everything()

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def close(self) -> None:
        self.runtime.close()

    def _reached(self, point: str) -> None:
        if point == "after_commit" and self._last == "after_answer_stored":
            point = "after_refresh_commit"  # steps and refreshes both call it `after_commit`
        self._last = point
        self._arrived[point] += 1
        then = self._then.pop((point, self._arrived[point]), None)
        if then is not None:
            then()

    def when(self, point: str, arrival: int, then: Callable[[], object]) -> None:
        """Call *then* at that arrival at a crash point, counted from 1; at arrival 0, now."""
        if arrival:
            self._then[point, arrival] = then
        else:
            then()

    def kill(self) -> None:
        """End this very run as kill -9 would."""
        raise Killed

    # What people and senders do

    def connect(self, tenant: str, login: str, *connections: str) -> None:
        """Consent on the sandbox's own page, and the callback that follows."""
        for through in connections:
            key = AccountKey(tenant=tenant, connection=through, principal=f"{tenant}.{login}")
            browser, now = secrets.token_urlsafe(32), datetime.now(UTC)
            link = self.runtime.connect_flow.start(key, now=now)
            url = self.runtime.connect_flow.authorize(link.text, browser=browser, now=now)
            assert isinstance(url, str), url
            form = Form(self.sandbox.http.get(url).text)
            said = {**form.hidden, "user": login, "decision": "allow"}
            answer = self.sandbox.http.post(self.sandbox.url("auth", form.action), data=said)
            back = dict(httpx.URL(answer.headers["location"]).params)
            ended = self.runtime.connecting.finish(through, back, browser=browser, now=datetime.now(UTC))
            assert isinstance(ended, Done), ended

    def connect_engineer(self, tenant: str, login: str) -> None:
        self.connect(tenant, login, "github", linear_of(tenant))

    def connect_seller(self, tenant: str, login: str) -> None:
        self.connect(tenant, login, SALESFORCE)

    def deliver(
        self, source: str, event: str, document: Mapping[str, Any], *, through: str, installation: str | None = None
    ) -> Acceptance:
        """A delivery whose signature was verified by its source: from here on everything is the ledger's."""
        delivery = SignedDelivery(
            source=source,
            connection=through,
            delivery_id=f"delivery-{next(self._numbers)}",
            event=event,
            body=json.dumps(document).encode(),
            document=document,
            installation=installation,
            dedupe_by_body=False,
        )
        matches = self.registry.match(source, event, document)
        return self.runtime.intake.accept(delivery, matches, outcome=DeliveryOutcome.IGNORED, reason="")

    def report(self, tenant: str, kind: str, data: Mapping[str, Any], *, at: datetime | None = None) -> Acceptance:
        """A tenant's own system reports, in the envelope of Standard Webhooks."""
        document = {"type": kind, "timestamp": (at or datetime.now(UTC)).isoformat(), "data": dict(data)}
        return self.deliver("standard", kind, document, through=standard_of(tenant))

    def github(self, event: str, delivery: str) -> Acceptance:
        """A delivery that the pretend GitHub made and held back."""
        document = self.held(delivery)
        installation = str(document["installation"]["id"])
        return self.deliver("github", event, document, through="github", installation=installation)

    def held(self, delivery: str) -> dict[str, Any]:
        answer = self.sandbox.http.get(self.sandbox.url("github", f"/_sandbox/deliveries/{delivery}"))
        found: dict[str, Any] = answer.json()["request"]["payload"]
        return found

    def pull(self, repo: str, author: str, *labels: str, **more: Any) -> int:
        """A pull request that is opened, and delivered; its number."""
        opened = self.sandbox.open_pull(repo, author, labels=list(labels), hold=True, **more)
        for guid in opened["deliveries"]:
            self.github("pull_request", guid)
        return int(opened["number"])

    def told(self, repo: str, number: int, what: str, event: str = "pull_request", **more: Any) -> None:
        """Something happens to a pull request, and is delivered."""
        made = self.sandbox.order("github", f"pulls/{repo}/{number}/{what}", hold=True, **more)
        for guid in made["deliveries"]:
            self.github(event, guid)

    def night(self, tenant: str, workflow: str, *, due: datetime) -> None:
        """The beat looks at its schedule, of which a slot was due at *due*; no other schedule is, whatever the hour."""
        later = update(schedules).values(next_at=datetime.now(UTC) + timedelta(days=1))
        self.runtime.database.write(lambda c: c.execute(later).rowcount)
        when = update(schedules).where(schedules.c.id == f"{tenant}:{workflow}").values(next_at=due)
        self.runtime.database.write(lambda c: c.execute(when).rowcount)
        self.runtime.schedules.fire_due(datetime.now(UTC))

    def revoke(self, kind: ScopeKind, key: str, tenant: str) -> str:
        """Its id."""
        made = self.runtime.ids("rev")
        declare = partial(
            revocation.declare,
            id=made,
            scope=Scope(kind=kind, key=key),
            tenant=tenant,
            source="test",
            by="test",
            reason="test",
            now=datetime.now(UTC),
        )
        self.runtime.database.write(declare)
        return made

    # Work

    def work_once(self) -> None:
        """Every job that is due gets one run; a run that is killed leaves everything as a dead process would."""
        due = select(jobs.c.id).where(jobs.c.state == JobState.QUEUED).order_by(jobs.c.accepted)
        for (job,) in self.rows(due):
            try:
                self.runtime.worker.handle(job)
            except Killed:
                return

    def settle(self, *, until: Callable[[], bool] = lambda: False) -> list[Row[Any]]:
        """Let time pass and work be done until every job has ended, or waits for a person; the jobs."""
        duties = {duty.name: duty for duty in self.runtime.duties()}
        for _ in range(ROUNDS):
            if until():
                break
            self.work_once()
            if all(job.state in ENDED or job.wait in FOR_A_PERSON for job in self.jobs()):
                break
            self.runtime.database.write(time_passes)
            for name in ("reclaim", "settle-attempts", "wake"):
                duties[name].run()
        return self.jobs()

    # What is seen

    def rows(self, statement: Any) -> list[Row[Any]]:
        return list(self.runtime.database.read(lambda c: c.execute(statement).all()))

    def jobs(self) -> list[Row[Any]]:
        return self.rows(select(jobs).order_by(jobs.c.accepted))

    def steps(self) -> list[Row[Any]]:
        return self.rows(select(steps).order_by(steps.c.job_id, steps.c.position))

    def attempts(self) -> list[Row[Any]]:
        return self.rows(select(attempts).order_by(attempts.c.opened))

    def authors(self) -> list[tuple[str, str, str]]:
        """Every write of this ledger that upstreams logged, in their own words: where, by whom, with which token."""
        ours = {attempt.id for attempt in self.attempts()}
        log = [
            entry
            for upstream in ("github", "linear", "slack", "salesforce", "stripe", "zendesk")
            for entry in self.sandbox.read(upstream, "log")
            if entry["effect"] and entry["attempt"] in ours
        ]
        return [(entry["upstream"], str(entry["actor"]), entry["token_kind"]) for entry in log]
