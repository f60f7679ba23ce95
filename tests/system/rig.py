"""The whole system in real processes: sandbox, web, workers, revocations, housekeeping, beat; and the tests' hands."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Row, func, select

from deploy import process as deployed
from deploy.demo import people
from deploy.demo.provision import GITHUB, Provision, callbacks, linear_of
from deploy.keys import KeyFiles
from deploy.sandbox import clear
from deploy.sandbox.__main__ import SERVICES
from deploy.sandbox.world import TENANTS, make_app_key, make_world
from deploy.settings import Settings
from deploy.trial.trial import NoRing
from identity.ids import Ids
from identity.model import AccountKey, Scope, ScopeKind
from pipeline.authoring.registry import Registry
from pipeline.broker.ring import CeleryRing
from pipeline.db.database import DatabaseSettings
from pipeline.migrations import upgrade_at
from pipeline.model import Ring
from pipeline.revocation import declaration
from pipeline.revocation.tables import revocations
from pipeline.runtime import Runtime
from pipeline.states import JobState
from pipeline.tables import attempts, jobs, steps
from tests.servers.process import Process, end, free_port, start_python, tail
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.valkey import Valkey
from tests.servers.warm import CELERY
from tests.waiting import PATIENCE, eventually

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ("tasks.devops_assistant", "tasks.daily_digest", "tasks.slack_mention")
SANDBOX = ("auth", "github", "linear", "slack")
# What a busy ledger answers a sender, and what there is when it does not answer.
AGAIN = (503, 0)

# What the processes import, but for the modules that are them: those read their settings when they are imported.
WARM = (
    *CELERY,
    "deploy.process",
    "deploy.contradictions",
    "pipeline.broker.consumer",
    "pipeline.duties.housekeeping",
    "pipeline.broker.pool",
    "pipeline.runtime",
    "pipeline.schedules.beat",
    "pipeline.db.sqlite",
    *WORKFLOWS,
)
WARM_WEB = (
    *WARM,
    "deploy.console",
    "gunicorn.app.wsgiapp",
    "deploy.web_worker",
    "webhooks.api.app",
    "webhooks.app",
)

# Pauses are shortened, so that what takes minutes in production is seen here: the values, not the mechanism. Limits are
# not: a slow machine takes seconds for a commit or an answer, and passing one means another attempt or an unknown
# outcome. A test that waits for a limit to pass shortens it (`IMPATIENT` of tests/faults/conftest.py).
QUICK = {
    "ASWHOM_SEND_WITHIN": "30",
    "ASWHOM_CALL_DEADLINE": "20",
    "ASWHOM_WORKER_HOLD": "30",
    "ASWHOM_STEP_BACKOFF": "0.1",
    "ASWHOM_JOB_BACKOFF": "0.1",
    "ASWHOM_LOG_LEVEL": "INFO",
}


_app_key = cache(make_app_key)  # one for all systems: to make it takes longer than a step


class System:
    """One installation and the world around it."""

    def __init__(
        self,
        directory: Path,
        database_url: str,
        broker: Valkey | RabbitMQ,
        world: dict[str, Any] | None = None,
        /,
        **settings: str,
    ) -> None:
        """*world*: of a sandbox that runs already, whoever started it."""
        self.directory = directory
        self.broker: Any = broker  # a RabbitMQ cannot be emptied, nor asked as a Redis
        self.port = free_port()
        self.web = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, Process] = {}
        self.http = clear.client(timeout=30)
        self.world = world or self._made_world()
        (directory / "world.json").write_text(json.dumps(self.world))
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "ASWHOM_DATA_DIR": str(directory),
            "ASWHOM_DATABASE_URL": database_url,
            "ASWHOM_BROKER_URL": broker.url,
            "ASWHOM_BASE_URL": self.web,
            "ASWHOM_LISTEN": f"127.0.0.1:{self.port}",
            "ASWHOM_ALLOW_HOSTS": "127.0.0.1",
            "ASWHOM_WORKFLOWS": ",".join(WORKFLOWS),
            "ASWHOM_LOG_FORMAT": "json",
            **{f"ASWHOM_{name}_METRICS_PORT": "0" for name in ("WORKER", "REVOCATIONS", "HOUSEKEEPING", "BEAT")},
            **QUICK,
            **settings,
        }
        keys = directory / "keys"
        keys.mkdir(mode=0o700)
        KeyFiles(vault=keys / "vault", signing=keys / "signing").create()
        given = {name.removeprefix("ASWHOM_").lower(): value for name, value in self.environment.items()}
        known = {name: value for name, value in given.items() if name in Settings.model_fields}
        upgrade_at(DatabaseSettings(url=database_url))
        ring: Ring = NoRing()
        settings_ = Settings(**known)  # type: ignore[arg-type]
        workflows = Registry.load(self.environment["ASWHOM_WORKFLOWS"].split(","))
        self.runtime = Runtime(settings_.runtime(), workflows, ring)
        self.ring = CeleryRing(deployed.celery_app(settings_, self.runtime.workflows))
        self.ids = Ids()

    def _made_world(self) -> dict[str, Any]:
        hooks = {name: f"{self.web}/webhooks/{name}/{name}" for name in ("github", "slack")}
        hooks["linear"] = f"{self.web}/webhooks/linear/{linear_of('acme')}"
        made: dict[str, Any] = make_world(
            ports={name: free_port() for name in SERVICES},
            hooks=hooks,
            callbacks=callbacks(self.web, TENANTS),
            now=datetime.now(UTC),
            app_key=_app_key(),
            authority=self.web,
        )
        return made

    # Processes

    def start_sandbox(self) -> None:
        self.start_upstreams(*SANDBOX)
        self.furnish()

    def furnish(self) -> None:
        """Register the world's tenants."""
        Provision(self.runtime, self.world, now=datetime.now(UTC)).everything()

    def start_upstreams(self, *names: str) -> None:
        """Some of the sandbox's processes."""
        for name in names:
            files = ("--world", str(self.directory / "world.json"), "--log", str(self.directory / f"{name}.jsonl"))
            self.processes[f"sandbox-{name}"] = start_python(
                "deploy.sandbox",
                name,
                *files,
                log=self.directory / f"sandbox-{name}.log",
                environment=self.environment,
                warm=[f"deploy.sandbox.{name}.app"],
            )
        for name in names:
            self.wait(partial(self._answers, f"{self.world[name]['url']}/_sandbox/log"), f"sandbox {name}")

    def start(self, *names: str, **environment: str) -> None:
        """Start processes by the names of the Procfile; `worker-2` is another worker."""
        for name in names:
            module, *arguments = self._command(name)
            self.processes[name] = start_python(
                module,
                *arguments,
                log=self.directory / f"{name}.log",
                environment={**self.environment, **environment},
                warm=self._warm(name),
            )
        if "web" in names:
            self.wait(lambda: self._answers(f"{self.web}/readyz"), "the web process")

    def _command(self, name: str) -> list[str]:
        """The module of a process, and its arguments."""
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        options = ["--loglevel", "INFO", "--hostname", f"{name}@%h", *quiet]
        match name.partition("-")[0]:
            case "web":
                return ["gunicorn", "--config", "python:deploy.gunicorn", "deploy.wsgi:app"]
            case "worker":
                work = ["--queues", "delegated,service,hybrid,capability", "--concurrency", str(self.concurrency)]
                return ["celery", "--app", self.worker_app, "worker", *work, *options]
            case "revocations":
                work = ["--queues", "revocations", "--concurrency", "4"]
                return ["celery", "--app", self.revocations_app, "worker", *work, *options]
            case "housekeeping":
                return ["deploy.housekeeping"]
            case "beat":
                return [
                    "celery",
                    "--app",
                    "deploy.beat",
                    "beat",
                    "--scheduler",
                    "pipeline.schedules.beat:Scheduler",
                ]
        raise ValueError(name)

    def _warm(self, name: str) -> tuple[str, ...]:
        """Nothing for web processes that share their metrics: the library decides that when it is imported."""
        if name != "web":
            return WARM
        alone = (
            self.environment["ASWHOM_DATABASE_URL"].startswith("sqlite")
            and "ASWHOM_WEB_PROCESSES" not in self.environment
        )
        return WARM_WEB if alone else ()

    worker_app, revocations_app, concurrency = "deploy.worker", "deploy.worker", 16

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        end(process)
        return process.wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            end(process, signal.SIGKILL)
        self.ring.close()
        self.http.close()
        self.runtime.close()

    def logged(self, process: str) -> list[dict[str, Any]]:
        """What a process has logged. What is not of ours, before its log is set up, is left out."""
        lines = (self.directory / f"{process}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    # What people and providers do

    def connect(self, tenant: str, *logins: str) -> None:
        """Each connects GitHub and Linear through the real pages."""
        for login in logins:
            for through in (GITHUB, linear_of(tenant)):
                key = AccountKey(tenant=tenant, connection=through, principal=f"{tenant}.{login}")
                people.connect(self.runtime, key, web=self.web, login=login, now=datetime.now(UTC))

    def order(self, service: str, path: str, **body: Any) -> Any:
        """Something on a sandbox process's control surface."""
        answer = self.http.post(f"{self.world[service]['url']}/_sandbox/{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def sandbox(self, service: str, path: str) -> Any:
        return self.http.get(f"{self.world[service]['url']}/_sandbox/{path}").json()

    def pull(self, repo: str, author: str, *labels: str, once: bool = False, **more: Any) -> dict[str, Any]:
        """A pull request, and its deliveries: again while they fail, as off GitHub's list of those, or *once*."""
        opened: dict[str, Any] = self.order(
            "github", "pulls", repo=repo, author=author, title="A change", labels=list(labels), **more
        )
        statuses = opened["statuses"]

        def taken() -> bool:
            for n, delivery in enumerate(opened["deliveries"]):
                if statuses[n] in AGAIN:
                    statuses[n] = self.order("github", "deliver", delivery=delivery)["status"]
            return not set(AGAIN) & set(statuses)

        if statuses and not once:
            self.wait(taken, "that GitHub's deliveries are taken")
        return opened

    def revoke(self, scope: Scope, tenant: str) -> str:
        made = self.ids("rev")
        cause = declaration.Cause(source="test", by="test", reason="test")
        declare = partial(declaration.declare, scope=scope, cause=cause, id=made, tenant=tenant, now=datetime.now(UTC))
        self.runtime.database.write(declare)
        return made

    def revoke_and_ring(self, scope: Scope, tenant: str) -> str:
        """As the API does it; `revoke` leaves the rest to housekeeping."""
        made = self.revoke(scope, tenant)
        self.ring.revocations([made])
        return made

    def account(self, tenant: str, connection: str, principal: str) -> Scope:
        return Scope(kind=ScopeKind.ACCOUNT, key=f"{tenant}/{connection}/{tenant}.{principal}")

    # What is seen

    def rows(self, statement: Any) -> list[Row[Any]]:
        return list(self.runtime.database.read(lambda c: c.execute(statement).all()))

    def jobs(self) -> list[Row[Any]]:
        return self.rows(select(jobs).order_by(jobs.c.accepted))

    def steps(self, job: str) -> list[Row[Any]]:
        return self.rows(select(steps).where(steps.c.job_id == job).order_by(steps.c.position))

    def count(self, table: Any, *where: Any) -> int:
        return int(self.rows(select(func.count()).select_from(table).where(*where))[0][0])

    def receipt(self, made: str) -> Mapping[str, Any] | None:
        (row,) = self.rows(select(revocations.c.receipt).where(revocations.c.id == made))
        receipt: Mapping[str, Any] | None = row.receipt
        return receipt

    def attempts(self) -> list[Row[Any]]:
        return self.rows(select(attempts).order_by(attempts.c.opened))

    def effects(self, service: str, **fields: Any) -> list[dict[str, Any]]:
        """The requests that changed something at an upstream, by its own log."""
        log = [entry for entry in self.sandbox(service, "log") if entry["effect"]]
        return [entry for entry in log if all(entry[name] == value for name, value in fields.items())]

    # Waiting

    def wait(self, condition: Callable[[], object], what: str, *, seconds: float = PATIENCE) -> None:
        """Wait until *condition* holds; a process that ended in the meantime is told of."""

        def holds() -> bool:
            if condition():
                return True
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            if ended:
                raise AssertionError(f"{ended} ended while waiting for {what}:\n{self.log(ended[0])}")
            return False

        eventually(holds, what, seconds=seconds, log=self.state)

    def settled(self, *, seconds: float = PATIENCE) -> list[Row[Any]]:
        """Wait until no job is queued, running or stopping; return all jobs."""
        moving = (JobState.QUEUED, JobState.RUNNING, JobState.STOPPING)
        self.wait(lambda: not self.count(jobs, jobs.c.state.in_(moving)), "that all jobs settle", seconds=seconds)
        return self.jobs()

    def state(self) -> str:
        by = (jobs.c.state, jobs.c.wait, jobs.c.reason)
        counted = self.rows(select(*by, func.count()).group_by(*by))
        logs = "\n".join(f"--- {name}\n{self.log(name)}" for name in self.processes if not name.startswith("sandbox"))
        return f"{counted}\n{logs}"

    def log(self, name: str) -> str:
        return tail(self.directory / f"{name}.log", 12)

    def _answers(self, url: str) -> bool:
        try:
            return self.http.get(url).status_code == 200
        except httpx.TransportError:
            return False
