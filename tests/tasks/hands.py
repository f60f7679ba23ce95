"""What people and senders do to a system among the pretend upstreams, and what is seen of it: whoever does its work."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
from sqlalchemy import Row, select, update

from deploy.demo.provision import SALESFORCE, linear_of, standard_of
from identity.audit import Act
from identity.model import AccountKey, Scope, ScopeKind
from pipeline.accounts.connecting import Done
from pipeline.authoring.registry import Registry
from pipeline.desk.jobs import replay_all
from pipeline.model import Acceptance, DeliveryOutcome, SignedDelivery
from pipeline.revocation import declaration
from pipeline.runtime import Runtime
from pipeline.states import AttemptState, JobState
from pipeline.steps.resolution import Resolution, resolve_by_hand
from pipeline.tables import attempts, jobs, schedules, steps
from tests.sandbox.driver import Form, Sandbox


class Hands:
    """They reach the ledger through *runtime*, and the upstreams by *sandbox*."""

    def __init__(self, sandbox: Sandbox, runtime: Runtime, registry: Registry) -> None:
        self.sandbox = sandbox
        self.runtime = runtime
        self.registry = registry
        self._numbers = itertools.count(1)

    # What people and senders do

    def connect(self, tenant: str, login: str, *connections: str) -> None:
        """Consent on the sandbox's own page, and the callback that follows."""
        for through in connections:
            key = AccountKey(tenant=tenant, connection=through, principal=f"{tenant}.{login}")
            self.follow(self.runtime.connect_flow.start(key, now=datetime.now(UTC)).text, login, through)

    def follow(self, link: str, login: str, through: str) -> httpx.URL:
        """Consent by that link; the provider's address to which it led."""
        browser = secrets.token_urlsafe(32)
        url = self.runtime.connect_flow.authorize(link, browser=browser, now=datetime.now(UTC))
        assert isinstance(url, str), url
        form = Form(self.sandbox.http.get(url).text)
        said = {**form.hidden, "user": login, "decision": "allow"}
        answer = self.sandbox.http.post(self.sandbox.url("auth", form.action), data=said)
        back = dict(httpx.URL(answer.headers["location"]).params)
        ended = self.runtime.connecting.finish(through, back, browser=browser, now=datetime.now(UTC))
        assert isinstance(ended, Done), ended
        return httpx.URL(url)

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
            declaration.declare,
            scope=Scope(kind=kind, key=key),
            cause=declaration.Cause(source="test", by="test", reason="test"),
            id=made,
            tenant=tenant,
            now=datetime.now(UTC),
        )
        self.runtime.database.write(declare)
        return made

    def replay_the_dead(self) -> None:
        """An operator has mended what the dead jobs died of, and has them tried again."""
        dead = [job.id for job in self.jobs() if job.state == JobState.DEAD]
        act = Act(audit_id=self.runtime.ids("aud"), by="cli:test", now=datetime.now(UTC))
        replay = partial(replay_all, ids=dead, act=act, workflows=self.registry)
        assert self.runtime.database.write(replay).refused == ()

    def look_and_say(self) -> None:
        """An operator looks at Slack and says of the call in doubt what became of it."""
        posted = {message["attempt"]: message for message in self.sandbox.read("slack", "messages")}
        (attempt,) = [row for row in self.attempts() if row.state == AttemptState.UNKNOWN]
        message = posted.get(attempt.id)
        result = message and {"channel": message["channel"], "ts": message["ts"]}
        found_out = Resolution(calls=[attempt.id], effect=message is not None, result=result)
        act = Act(audit_id=self.runtime.ids("aud"), by="user:operator", now=datetime.now(UTC))
        self.runtime.database.write(lambda c: resolve_by_hand(c, attempt.job_id, found_out, act, self.registry))

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
