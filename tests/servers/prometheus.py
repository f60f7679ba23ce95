"""A private Prometheus that scrapes what a test tells it to, every second."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from deploy.sandbox import clear
from tests.servers.process import end, free_port, start, wait_until
from tests.waiting import PATIENCE


class Prometheus:
    """One server; ask it with `query`."""

    def __init__(self, program: Path, folder: Path, targets: Mapping[str, str], rules: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "prometheus.log"
        self._targets = targets
        self._http = clear.client(base_url=self.url, timeout=PATIENCE)
        (folder / "prometheus.yml").write_text(json.dumps(self._configuration(rules)), encoding="utf-8")
        command: list[str | Path] = [
            program,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
        ]
        self._process = start([*command, f"--web.listen-address={self.url.removeprefix('http://')}"], log=self.log)

    def _configuration(self, rules: Path) -> dict[str, Any]:
        static = [{"targets": [address], "labels": {"process": process}} for process, address in self._targets.items()]
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "aswhom", "static_configs": static}],
        }

    def wait_ready(self) -> None:
        wait_until(self._answers, process=self._process, log=self.log)

    def query(self, query: str) -> list[dict[str, Any]]:
        """The samples that an instant query comes to; AssertionError if Prometheus does not take it."""
        answer = self._http.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", f"{query}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, its health and its state."""
        groups = self._http.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def stop(self) -> None:
        self._http.close()
        end(self._process)

    def _answers(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def prometheus(program: Path, folder: Path, targets: Mapping[str, str], rules: Path) -> Iterator[Prometheus]:
    """A running server that scrapes *targets*: process → host:port."""
    server = Prometheus(program, folder, targets, rules)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()
