"""The sandbox's processes, run for the duration of one trial."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from deploy.demo.provision import callbacks
from deploy.ports import free_ports
from deploy.sandbox import clear
from deploy.sandbox.__main__ import SERVICES
from deploy.sandbox.world import TENANTS, make_world
from identity.errors import Unavailable


class Upstreams:
    """Simulated GitHub, Linear, Slack and others, with their control endpoints and logs."""

    def __init__(self, world: dict[str, Any], http: httpx.Client) -> None:
        self.world = world
        self.http = http

    def url(self, service: str, path: str = "") -> str:
        return str(self.world[service]["url"]) + path

    def order(self, service: str, path: str, **body: object) -> Any:
        """Post to a process's control endpoint, as described in deploy/sandbox/README.md."""
        return self.http.post(self.url(service, f"/_sandbox/{path}"), json=body).raise_for_status().json()

    def read(self, service: str, path: str) -> Any:
        return self.http.get(self.url(service, f"/_sandbox/{path}")).raise_for_status().json()


@contextmanager
def upstreams(folder: Path, *, base_url: str) -> Iterator[Upstreams]:
    """Run every sandbox process. *base_url* is where its consent pages redirect back to."""
    ports = dict(zip((*SERVICES, "nobody"), free_ports(len(SERVICES) + 1), strict=True))
    nobody = f"http://127.0.0.1:{ports['nobody']}"  # deliveries are held, and fetched rather than sent
    world = make_world(
        ports=ports,
        hooks=dict.fromkeys(("github", "slack", "linear"), nobody),
        callbacks=callbacks(base_url, TENANTS),
        now=datetime.now(UTC),
    )
    file = folder / "world.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(world), encoding="utf-8")
    with ExitStack() as running:
        started = [running.enter_context(_started(folder, name)) for name in SERVICES]
        for name, process in zip(SERVICES, started, strict=True):
            if process.stdout is None or not process.stdout.readline():
                raise Unavailable(f"the sandbox's {name} did not start")
        yield Upstreams(world, running.enter_context(clear.client(timeout=10)))


@contextmanager
def _started(folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    files = ("--world", str(folder / "world.json"), "--log", str(folder / f"{name}.jsonl"))
    command = [sys.executable, "-m", "deploy.sandbox", name, *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
