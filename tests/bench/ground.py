"""What the measurements stand on: one Valkey, one PostgreSQL, a directory, and a furnished ledger of each kind."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
from sqlalchemy import Connection, update

from deploy import procfile
from deploy.keys import KeyFiles
from deploy.settings import Settings
from identity.connections.installations import add_installation
from identity.connections.registry import get_connection
from identity.connections.secrets import WEBHOOK_SECRET, add_secret, seal_secret
from identity.errors import Unavailable
from identity.model import AccessPattern, PrincipalKind
from identity.policy.decision import Decision
from identity.principals import ensure_principal, ensure_tenant, link_alias
from identity.secret import Secret
from identity.tables import provider_connections
from pipeline.db.database import Database, DatabaseSettings, open_database
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.intents import Intent
from pipeline.migrations import upgrade
from pipeline.tables import workflow_settings
from tests.ledger.house import House, intent_of
from tests.servers.postgres import Postgres, postgres
from tests.servers.process import end, start, wait_until
from tests.servers.valkey import Valkey, valkey

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
KINDS = ("SQLite", "PostgreSQL")
TENANTS = 256
WEBHOOK_KEY = "a webhook secret of the measurements"
USER = Decision(kind=PrincipalKind.USER, pattern=AccessPattern.DELEGATED, reason="named by the workflow")


class Ledger:
    """A migrated ledger, the house of the ledger's tests in it, and 256 tenants whose deliveries one secret signs."""

    def __init__(self, ground: Ground, kind: str, directory: Path) -> None:
        self.ground = ground
        self.kind = kind
        self.directory = directory
        on_sqlite = kind == "SQLite"
        self.url = (
            f"sqlite:///{directory}/ledger.db" if on_sqlite else ground.cluster.url(ground.cluster.create_database())
        )
        self.database = as_a_worker_does(self.url)
        upgrade(self.database)
        self.house = House(self.database)
        self.house.build()
        self._write_keys()

    def receive(self, api_url: str) -> None:
        """Let a web process take deliveries, and workers call *api_url*."""
        now = datetime.now(UTC)
        self.database.write(partial(self._furnish, api_url=api_url, now=now))
        for first in range(0, TENANTS, 64):
            self.database.write(partial(self._tenants, numbers=range(first, first + 64), now=now))

    def _furnish(self, c: Connection, *, api_url: str, now: datetime) -> None:
        owner = get_connection(c, "gh")
        c.execute(update(provider_connections).values(api_url=api_url))
        secret = Secret(WEBHOOK_KEY)
        add_secret(c, seal_secret(self.house.vault, owner, id="hook", name=WEBHOOK_SECRET, secret=secret, now=now))

    def _tenants(self, c: Connection, *, numbers: range, now: datetime) -> None:
        for number in numbers:
            tenant, ada = f"tenant-{number}", f"tenant-{number}.ada"
            ensure_tenant(c, id=tenant, name=tenant, now=now)
            service = f"{tenant}.service"
            ensure_principal(c, id=service, tenant=tenant, kind=PrincipalKind.SERVICE, name="service", now=now)
            ensure_principal(c, id=ada, tenant=tenant, kind=PrincipalKind.USER, name="ada", now=now)
            who = {"external_id": "1001", "principal": ada, "login": "ada", "made_by": "admin:bench"}
            link_alias(c, tenant=tenant, provider="github", now=now, **who)
            add_installation(c, owner="gh", external_id=str(number), tenant=tenant, now=now)
            workflow = self.house.workflow.name
            c.execute(workflow_settings.insert().values(tenant_id=tenant, workflow=workflow, enabled=True, config={}))

    def _write_keys(self) -> None:
        """The house's vault key, and new ones for the rest, where the processes look for them."""
        keys = self.directory / "keys"
        keys.mkdir(mode=0o700)
        (keys / "vault").touch(mode=0o600)
        (keys / "vault").write_text(f"1:{b64encode(b'k' * 32).decode()}\n")
        KeyFiles(vault=keys / "vault", signing=keys / "signing").create()

    def write(self, fn: Callable[[Connection], T]) -> T:
        """As `persistently` does."""
        return persistently(self.database, fn)

    def claimed(self) -> ClaimedJob:
        """A job of acme's, accepted and claimed for an hour."""
        return self.house.claim(self.house.job(), claim_for=timedelta(hours=1))

    def intent(self, job: ClaimedJob, position: int) -> Intent:
        """What opens the job's step at *position*, as ada."""
        return intent_of(self.house, job, position=position, occurrence=position)

    def environment(self, **more: str) -> dict[str, str]:
        """The settings of a real process on this ledger: the defaults, but for where things are."""
        return {
            **self.ground.environment,
            "ASWHOM_DATA_DIR": str(self.directory),
            "ASWHOM_DATABASE_URL": self.url,
            "ASWHOM_BROKER_URL": self.ground.broker.url,
            "ASWHOM_KEY_PREFIX": f"{self.kind.lower()}:",
            "ASWHOM_ALLOW_HOSTS": "127.0.0.1",
            "ASWHOM_WORKFLOWS": "tests.ledger.house",
            **{f"ASWHOM_{name}_METRICS_PORT": "0" for name in ("WORKER", "REVOCATIONS", "HOUSEKEEPING", "BEAT")},
            **more,
        }


class Ground:
    """The servers of a run, and the child processes that measurements start on it."""

    def __init__(
        self, directory: Path, broker: Valkey, cluster: Postgres, *, kinds: Sequence[str], pending: int, jobs: int
    ) -> None:
        self.directory = directory
        self.kinds = kinds
        self.pending = pending  # jobs that *backlog* queues
        self.jobs = jobs  # that *console* fills its ledgers with
        self.broker = broker
        self.cluster = cluster
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        self.environment = {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    @contextmanager
    def ledgers(self, kinds: Sequence[str] | None = None) -> Iterator[dict[str, Ledger]]:
        """A fresh ledger of each kind; None: of those that were asked for."""
        with ExitStack() as stack:
            made = {}
            for kind in self.kinds if kinds is None else kinds:
                directory = self.directory / secrets.token_hex(4)
                directory.mkdir()
                made[kind] = Ledger(self, kind, directory)
                stack.callback(made[kind].database.close)
            yield made

    @contextmanager
    def processes(self) -> Iterator[Processes]:
        """Child processes that end with the block, and so does what they left in the broker."""
        started = Processes(self)
        try:
            yield started
        finally:
            started.end()
            self.broker.flush()


class Processes:
    """Children of one measurement."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._running: list[subprocess.Popen[str]] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[subprocess.Popen[str], Path]:
        log = self._ground.directory / f"{secrets.token_hex(4)}.log"
        process = start(command, log=log, environment=environment)
        self._running.append(process)
        return process, log

    def listed(self, name: str, environment: Mapping[str, str], *, number: int = 1) -> subprocess.Popen[str]:
        """A process of the Procfile, by the very command that is there."""
        return self.start(listed(name).numbered(number).command, environment)[0]

    def serve(self, command: Sequence[str], environment: Mapping[str, str], url: str) -> int:
        """Start a server and wait until it answers at *url*, whatever it answers; its process id."""
        process, log = self.start(command, environment)

        def answers() -> bool:
            try:
                httpx.get(url, trust_env=False)
            except httpx.TransportError:
                return False
            return True

        wait_until(answers, process=process, log=log)  # other processes start beside it
        return process.pid

    def kill(self, pid: int) -> None:
        """kill -9 a process of these, and its children."""
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for each in (pid, *children):
            with suppress(ProcessLookupError):  # a child that saw its parent go
                os.kill(each, signal.SIGKILL)

    def end(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            end(process, seconds=20)


def processor_time(pid: int) -> float:
    """Seconds of the processor that a process has had, with its children and theirs, whether they live or not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")  # and of children that have ended
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since, and counts from the next time on
            own += processor_time(int(child))
    return own


def listed(name: str) -> procfile.Process:
    """A process of the Procfile."""
    (found,) = (process for process in procfile.read() if process.name == name)
    return found


@contextmanager
def prepared(*, kinds: Sequence[str] = KINDS, pending: int = 20_000, jobs: int = 1_000_000) -> Iterator[Ground]:
    """The servers, running in directories of their own where TMPDIR says."""
    with (
        tempfile.TemporaryDirectory(prefix="aswhom-bench-") as directory,
        valkey(appendfsync="everysec") as broker,  # as shipped
        postgres(durable=True) as cluster,
    ):
        yield Ground(Path(directory), broker, cluster, kinds=kinds, pending=pending, jobs=jobs)


def as_a_worker_does(url: str) -> Database:
    """Open the ledger as a worker with the settings that it comes with."""
    return open_database(DatabaseSettings(url=url, writes_at_once=Settings.model_fields["worker_writes"].default))


def persistently(database: Database, fn: Callable[[Connection], T]) -> T:
    """Write as a caller does that is told to come again: the time until it is written is what counts."""
    while True:
        try:
            return database.write(fn)
        except Unavailable:
            continue


def at_once(threads: int, work: Callable[[int], None]) -> None:
    """Run *work* in so many threads and wait for them; the first failure is raised here."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as failure:  # noqa: BLE001 - raised again below
            failures.append(failure)

    running = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]
