"""The demo's stage: the whole system and the sandbox, started for it and removed afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from deploy import process, up
from deploy.demo import nights, payments
from deploy.demo.asking import ADVICE, asking
from deploy.demo.commands import Commands
from deploy.demo.provision import Provision, callbacks, standard_of
from deploy.fixtures.signing import signature
from deploy.ports import free_ports
from deploy.procfile import Process
from deploy.sandbox import clear
from deploy.sandbox.__main__ import SERVICES
from deploy.sandbox.world import TENANTS, make_world
from deploy.settings import Settings, load
from identity.errors import Misconfigured, Unavailable
from identity.secret import Secret
from pipeline.runtime import Runtime

SANDBOX = ("auth", "github", "linear", "slack", "salesforce", "stripe", "invoices")  # the upstreams the story needs
T = TypeVar("T")


class Stage:
    """A context in which everything runs, for at most *within* from now. Processes log to `demo.log` in *directory*."""

    def __init__(self, directory: Path, *, say: Callable[[str], None], within: timedelta) -> None:
        self._directory = directory
        self._say = say
        self._within = within
        self._end = time.monotonic() + within.total_seconds()
        self._closing = ExitStack()
        self._running: up.Up | None = None
        self._heard: list[str] = []  # messages of `up`
        self.commands = Commands(directory, left=lambda: self._end - time.monotonic())
        self.http = clear.client(timeout=10)
        self._closing.callback(self.http.close)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:  # includes Ctrl-C: started processes must not outlive us
            self._closing.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def _start(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            taken = any(self._directory.iterdir())
        except OSError as fault:
            raise Misconfigured(
                f"{self._directory} cannot be used ({fault.strerror}): choose another --data-dir"
            ) from fault
        if taken:
            raise Misconfigured(f"the demo makes an installation of its own: {self._directory} is not empty")
        ports = dict(zip((*SERVICES, "web"), free_ports(len(SERVICES) + 1), strict=True))
        self.web = f"http://127.0.0.1:{ports['web']}"
        self.settings = self._settings(ports["web"])
        hooks = {name: f"{self.web}/webhooks/{name}/{name}" for name in ("github", "slack")}
        self.world: dict[str, Any] = make_world(
            ports=ports,
            hooks=hooks,
            callbacks=callbacks(self.web, TENANTS),
            now=datetime.now(UTC),
            authority=self.web,
        )
        world = self._directory / "world.json"
        world.touch(mode=0o600)
        world.write_text(json.dumps(self.world), encoding="utf-8")
        log = self._directory / "demo.log"
        running = up.Up(self.settings, extra=[self._sandbox(name) for name in SANDBOX], log=log, say=self._heard.append)
        self._running = running
        self._closing.callback(running.wait)
        self._closing.callback(running.stop)
        self._say("Starting the sandbox, Valkey, the ledger, web, workers, revocations, housekeeping and beat …")
        running.start()
        if not running.wait_ready(within=timedelta(seconds=self._end - time.monotonic())):
            raise self._late("the system to start") if running.running else self._fallen()
        self.runtime: Runtime = process.open_runtime(self.settings)
        self._closing.callback(self.runtime.close)
        for name in SANDBOX:
            self.until(partial(self._answers, self.world[name]["url"]), f"the sandbox's {name}")
        now = datetime.now(UTC)
        Provision(self.runtime, self.world, now=now).everything()
        nights.hold_back(self.runtime.database)
        payments.provide(self.runtime, self.world, tenants={"acme": ("ada", "grace")}, now=now)

    def _settings(self, port: int) -> Settings:
        given: dict[str, Any] = {
            "data_dir": self._directory,
            "listen": f"127.0.0.1:{port}",
            "base_url": self.web,
            "allow_hosts": ("127.0.0.1",),
            "call_deadline": timedelta(seconds=5),
            "send_within": timedelta(seconds=2),
            "step_backoff": timedelta(seconds=0.2),
            **{f"{name}_metrics_port": 0 for name in ("web", "worker", "revocations", "housekeeping", "beat")},
        }
        settings = load(**given)
        # A ledger, broker or keys from the environment would belong to a real installation.
        others = settings.model_fields_set - given.keys() - {"log_format", "log_level"}
        if others:
            names = ", ".join(f"ASWHOM_{name.upper()}" for name in sorted(others))
            raise Misconfigured(f"the demo makes an installation of its own: unset {names}")
        return settings

    def _sandbox(self, name: str) -> Process:
        files = ("--world", "world.json", "--log", f"{name}.jsonl")
        return Process(name=name, command=("python", "-m", "deploy.sandbox", name, *files))

    # Acting and observing

    def order(self, service: str, path: str, **body: object) -> Any:
        """Post to a sandbox process's control endpoint."""
        with asking(f"the sandbox's {service}"):
            answer = self.http.post(f"{self.world[service]['url']}/_sandbox/{path}", json=body)
            return answer.raise_for_status().json()

    def report(self, tenant: str, kind: str, **data: object) -> None:
        """Send a signed report to the running web, as a tenant's own system would."""
        now = datetime.now(UTC)
        (own,) = [one for one in self.world["standard"] if one["tenant"] == tenant]
        body = json.dumps({"type": kind, "timestamp": now.isoformat(), "data": data}).encode()
        signed = signature("standard", kind, body, Secret(own["secret"]), now=now)
        headers = {"Content-Type": "application/json", **signed}
        with asking("the web"):
            self.http.post(
                f"{self.web}/webhooks/standard/{standard_of(tenant)}", content=body, headers=headers
            ).raise_for_status()

    def sandbox(self, service: str, path: str) -> Any:
        with asking(f"the sandbox's {service}"):
            return self.http.get(f"{self.world[service]['url']}/_sandbox/{path}").raise_for_status().json()

    def forget_faults(self, service: str) -> None:
        """Remove a sandbox process's injected faults."""
        with asking(f"the sandbox's {service}"):
            self.http.delete(f"{self.world[service]['url']}/_sandbox/faults").raise_for_status()

    def until(self, look: Callable[[], T], what: str) -> T:
        """Return the result of *look* once it is true. Raise Unavailable if the time runs out first."""
        while not (seen := look()):
            if self._running is not None and not self._running.running:
                raise self._fallen()
            if time.monotonic() > self._end:
                raise self._late(what)
            time.sleep(0.05)  # polling, since other processes send no notification
        return seen

    def _late(self, what: str) -> Unavailable:
        whole = self._within.total_seconds()
        return Unavailable(f"the demo did not end within {whole:.0f} s: it was waiting for {what}. {ADVICE}")

    def _fallen(self) -> Unavailable:
        """Return the error for a system that ended by itself, with the reason."""
        assert self._running is not None  # noqa: S101 - only a started system can end
        before = len(self._heard)
        self._running.wait()
        why = "; ".join(self._heard[before:]) or "something stopped it"
        return Unavailable(f"the demo's system does not run any more: {why}. {ADVICE}")

    def _answers(self, url: str) -> bool:
        try:
            return self.http.get(f"{url}/_sandbox/log").is_success
        except httpx.TransportError:
            return False
