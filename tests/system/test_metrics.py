"""A real run, scraped by a real Prometheus: every process tells what it counts, and every panel has an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from deploy.grafana.__main__ import FILES
from tests.docs.pages import ROOT
from tests.servers.process import free_port
from tests.servers.prometheus import Prometheus
from tests.servers.prometheus import prometheus as run_prometheus
from tests.servers.valkey import valkey as run_valkey
from tests.system.rig import System

NAMES = ("worker-1", "revocations", "housekeeping", "beat")
ALERTS = ROOT / "deploy/prometheus/alerts.yml"


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A system in which a job ran, a consent was withdrawn, a stranger knocked and a schedule fired."""

    system: System
    targets: dict[str, str]

    def scraped(self, process: str) -> dict[str, float]:
        """The series that a process exposes now."""
        text = self.system.http.get(f"http://{self.targets[process]}/metrics").text
        named = re.search(r'="(acme|globex|ada|grace|job_|acc_|rev_)', text)
        assert not named, "a label names a tenant, a user or a job"
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {series: float(value) for series, _, value in samples}


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    ports = {name: free_port() for name in NAMES}
    settings = {f"ASWHOM_{name.partition('-')[0].upper()}_METRICS_PORT": str(port) for name, port in ports.items()}
    with run_valkey() as broker:
        system = System(folder, f"sqlite:///{folder}/ledger.sqlite", broker, **settings)
        try:
            system.start_sandbox()
            system.start("web", *NAMES)
            live(system)
            targets = {"web": system.web.removeprefix("http://")}
            yield Observed(system=system, targets=targets | {name: f"127.0.0.1:{port}" for name, port in ports.items()})
        finally:
            system.close()


def live(system: System) -> None:
    """What happens while it is watched."""
    system.connect("acme", "ada")
    system.pull("acme/shop", "ada", "bug")
    system.wait(system.jobs, "an accepted job")
    system.settled()
    system.order("github", "authorizations/revoke", user="ada")
    system.http.post(
        f"{system.web}/webhooks/github/github", content=b"{}", headers={"Content-Type": "application/json"}
    )


@pytest.fixture(scope="module")
def watched(
    observed: Observed, prometheus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Observed, Prometheus]]:
    folder = tmp_path_factory.mktemp("prometheus")
    with run_prometheus(prometheus, folder, observed.targets, ALERTS) as server:
        yield observed, server


def test_every_process_exports_what_it_counts(observed: Observed) -> None:
    scraped, wait = observed.scraped, observed.system.wait
    step = 'aswhom_steps_total{action="github.Comment",outcome="done",pattern="delegated"}'
    assert scraped("worker-1")[step] == 1
    assert scraped("worker-1")['aswhom_jobs_finished_total{outcome="done",pattern="hybrid"}'] == 1
    assert scraped("web")['aswhom_webhooks_total{outcome="accepted",source="github"}'] == 1
    assert scraped("web")["aswhom_revocation_effective_seconds_count"] == 1
    assert any(series.startswith("aswhom_refreshes_total") for series in scraped("worker-1"))
    wait(lambda: scraped("revocations").get("aswhom_revocation_seconds_count") == 1, "a revocation's seconds")
    wait(lambda: 'aswhom_queue_depth{pattern="hybrid"}' in scraped("housekeeping"), "the queue's depth")
    assert "aswhom_beat_slots_total" in scraped("beat")


def test_every_panel_is_answered_by_a_prometheus_that_scraped_the_run(watched: tuple[Observed, Prometheus]) -> None:
    observed, server = watched

    def seen(query: str) -> bool:
        return bool(server.query(query))

    # A rate needs two scrapes of each process, and a gauge one look of its duty.
    observed.system.wait(lambda: len(server.query("count_over_time(up[1m]) >= 2")) == 5, "two scrapes of each process")
    for dashboard in FILES.values():
        for panel in dashboard.panels:
            for query in panel.queries.values():
                asked = query.replace("$__rate_interval", "1m")
                observed.system.wait(partial(seen, asked), f"an answer to {dashboard.uid}, {panel.title}", seconds=20)


def test_every_alert_is_evaluated_and_none_fires_over_a_run_in_order(watched: tuple[Observed, Prometheus]) -> None:
    observed, server = watched
    observed.system.wait(lambda: all(rule["health"] == "ok" for rule in server.rules()), "an evaluation of each rule")
    assert len(server.rules()) > 20
    assert {rule["name"] for rule in server.rules() if rule["state"] == "firing"} == set()
