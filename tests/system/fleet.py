"""A whole installation as the Procfile has it, and an upstream of it that goes away and comes back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, select

from deploy.demo import people
from deploy.demo.provision import linear_of
from deploy.sandbox.world import PEOPLE, TENANTS
from identity.audit import Act
from identity.model import AccountKey
from pipeline.authoring.declared_workflow import Workflow
from pipeline.desk.workflows import enable
from pipeline.jobs import pins
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.states import AttemptState, JobState, Wait
from pipeline.tables import attempts, jobs
from pipeline.workflow import ExternalUser
from tasks.events.slack import AppMentionEvent
from tests.servers.process import free_port
from tests.system.errands import file_issue, say_it
from tests.system.rig import WORKFLOWS, System

WORKERS = ("worker-1", "worker-2", "worker-3")
SLOTS = 8  # of each worker
SETTINGS = {
    "ASWHOM_WORKFLOWS": ",".join((*WORKFLOWS, "tests.system.errands")),
    # So many processes share a test's machine: a call that is sent late would be one more, of which nobody asked.
    "ASWHOM_SEND_WITHIN": "5",
    "ASWHOM_WORKER_HOLD": "10",
    "ASWHOM_CALL_DEADLINE": "5",
}
ALWAYS = 10_000  # as often as the sandbox takes an order for
# What the breaker's rule says, in seconds: docs/explanation/waiting-for-upstreams.md.
FAILURES, COOLING, PROBE = 5, 10, 30


class Fleet:
    """A system with three workers and everything else, whose jobs are at one of two upstreams each."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._ports = {name: free_port() for name in WORKERS}
        self._made = 0
        system.concurrency = SLOTS
        system.start("web", "housekeeping", "revocations", "beat")
        self.start_workers()
        for tenant in TENANTS:
            for workflow, config in ((file_issue, {"team_id": self._team(tenant)}), (say_it, {})):
                act = Act(audit_id=system.ids("aud"), by="admin:test", now=datetime.now(UTC))
                switch = partial(enable, tenant=tenant, workflow=workflow, act=act, config=config)
                system.runtime.database.write(switch)

    def start_workers(self) -> None:
        for before, (name, port) in enumerate(self._ports.items()):
            first = str(port - before)  # the setting is of the machine's first worker
            self.system.start(name, ASWHOM_WORKER_METRICS_PORT=first)

    def connect(self, tenant: str, login: str) -> None:
        """Linear alone, through the real pages."""
        key = AccountKey(tenant=tenant, connection=linear_of(tenant), principal=f"{tenant}.{login}")
        people.connect(self.system.runtime, key, web=self.system.web, login=login, now=datetime.now(UTC))

    # Jobs

    def queue(self, workflow: Workflow, tenant: str, login: str, number: int) -> list[str]:
        """*number* jobs, accepted like any; who dispatches finds them."""
        made = [self.system.ids("job") for _ in range(number)]

        def insert(c: Connection) -> None:
            config = pins.enabled(c, tenant, workflow.name)
            assert config is not None
            for job in made:
                new = NewJob(
                    id=job,
                    tenant=tenant,
                    workflow=workflow,
                    user=f"{tenant}.{login}" if workflow is file_issue else None,
                    triggered_by=login,
                    event=self._event(tenant, login, job),
                    config=config,
                )
                insert_job(c, new, now=datetime.now(UTC))

        self.system.runtime.database.write(insert)
        return made

    def queue_for_all(self, workflow: Workflow, number: int) -> list[str]:
        """So many of each person of each tenant."""
        return [
            job for tenant in TENANTS for login in PEOPLE[tenant] for job in self.queue(workflow, tenant, login, number)
        ]

    def _event(self, tenant: str, login: str, text: str) -> dict[str, Any]:
        (found,) = [one for one in self.system.world["slack"]["workspaces"] if one["name"] == tenant]
        who = ExternalUser(provider="slack", id=login, login=login)
        channel = found["channels"][0]["id"]
        event = AppMentionEvent(
            team=found["team_id"], channel=channel, user=who, text=text, ts="1.000001", thread_ts=None
        )
        return event.model_dump(mode="json")

    def _team(self, tenant: str) -> str:
        (found,) = [one for one in self.system.world["linear"]["organizations"] if one["url_key"] == tenant]
        return str(found["teams"][0]["id"])

    def states(self, made: Sequence[str]) -> Counter[tuple[str, str | None]]:
        found = self.system.rows(select(jobs.c.state, jobs.c.wait).where(jobs.c.id.in_(made)))
        return Counter((row.state, row.wait) for row in found)

    def all_are(self, made: Sequence[str], state: JobState, wait: Wait | None = None) -> Callable[[], bool]:
        return lambda: self.states(made) == {(state, wait): len(made)}

    # What Linear was asked

    def asked(self, since: datetime) -> list[datetime]:
        """When a worker went to Linear for a step since then, by the ledger: what refuses connections has no log."""
        mine = select(attempts.c.opened_at).where(
            attempts.c.connection_id.in_([linear_of(tenant) for tenant in TENANTS]), attempts.c.opened_at > since
        )
        return sorted(row.opened_at for row in self.system.rows(mine))

    def spent(self, since: datetime) -> int:
        """How many of those count as attempts of their step, of what has come to an end."""
        mine = select(attempts.c.counts_as).where(
            attempts.c.connection_id.in_([linear_of(tenant) for tenant in TENANTS]),
            attempts.c.opened_at > since,
            attempts.c.state != AttemptState.OPEN,
        )
        return sum(row.counts_as is None for row in self.system.rows(mine))

    def arrived(self, service: str = "linear") -> list[dict[str, Any]]:
        """The requests of steps in an upstream's own log, over all its lives."""
        lines = (self.system.directory / f"{service}.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["log"] == "request" and entry["attempt"]]

    def effects(self, service: str) -> Counter[str]:
        """How often each job did something there, by that log."""
        of = {row.id: row.job_id for row in self.system.rows(select(attempts.c.id, attempts.c.job_id))}
        return Counter(of[entry["attempt"]] for entry in self.arrived(service) if entry["effect"])

    # The breaker

    def breaker(self, tenant: str = "") -> dict[str, str]:
        """What Redis has of Linear's host, of one tenant or of all together."""
        host = self.system.world["linear"]["url"].partition("//")[2]
        key = f"aswhom:upstream:linear:{host}" + (f"/{tenant}" if tenant else "")
        with self.system.broker.client() as redis:
            found: dict[str, str] = redis.hgetall(key)
        return found

    def token_breakers(self) -> list[str]:
        """The token endpoints that Redis says are away."""
        with self.system.broker.client() as redis:
            hashes = [key for key in redis.scan_iter("aswhom:endpoint:*") if redis.type(key) == "hash"]
            return [key for key in hashes if redis.hexists(key, "open")]

    def is_found_out(self) -> bool:
        """All tenants together have found Linear away."""
        return "open" in self.breaker()

    def counted(self, name: str, **labels: str) -> float:
        """A counter over all workers, as they expose it now."""
        named = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        total = 0.0
        for port in self._ports.values():
            for line in self.system.http.get(f"http://127.0.0.1:{port}/metrics").text.splitlines():
                if line.startswith(f"{name}{{{named}}} "):
                    total += float(line.rpartition(" ")[2])
        return total

    def sent_back(self) -> Counter[str]:
        """How often the workers logged that a run ended since an upstream is away, by the workflow."""
        ended = [
            entry for name in WORKERS for entry in self.system.logged(name) if entry.get("action") == "job.run_ended"
        ]
        return Counter(entry["workflow"] for entry in ended if entry["ending"] == "UpstreamAway")


class Illness:
    """How Linear is away."""

    def __init__(self, system: System, how: str) -> None:
        self._system, self._how = system, how

    def begin(self) -> None:
        match self._how:
            case "answers 503":
                self._system.order("linear", "faults", mode="status", status=503, times=ALWAYS)
            case "hangs":
                self._system.order("linear", "faults", mode="status", status=503, times=ALWAYS, seconds=120)
            case "refuses connections":
                self._system.kill("sandbox-linear")

    def end(self) -> None:
        if self._how == "refuses connections":
            self._system.start_upstreams("linear")
            return
        self._system.http.delete(f"{self._system.world['linear']['url']}/_sandbox/faults")
        self._system.order("linear", "release")


def gaps(times: Sequence[datetime]) -> list[float]:
    return [(after - before).total_seconds() for before, after in pairwise(times)]
