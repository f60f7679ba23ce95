"""A real run, scraped by a real Prometheus: every process tells what it counts, and every panel has an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import isfinite
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
#: The panels on which a run in order leaves more than nothing.
MOVED = {
    "aswhom-operators": (
        "Requests", "How long requests take", "Webhooks", "Doorbells", "Jobs that ended", "Steps",
        "How long a step takes", "Tries", "Claims", "Requests that draw on a budget", "How long duties take", "Memory",
        "Processor",
    ),
    "aswhom-identity": (
        "Leases", "Requests at token endpoints", "As whom steps ran", "Until a revocation is effective",
        "Until nothing of it is in flight", "Signals of providers", "Signatures that were refused",
    ),
}  # fmt: skip
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
        # A rate needs what was counted before and after: from nothing to one is no increase that Prometheus sees.
        twice = "count_over_time(up[1m]) >= 2"
        observed.system.wait(lambda: len(server.query(twice)) == 5, "two scrapes of each process")
        live(observed.system)
        yield observed, server


def test_every_process_exports_what_it_counts(observed: Observed) -> None:
    scraped, wait = observed.scraped, observed.system.wait
    step = 'aswhom_steps_total{action="github.Comment",outcome="done",pattern="delegated"}'
    assert scraped("worker-1")[step] >= 1
    assert scraped("worker-1")['aswhom_jobs_finished_total{outcome="done",pattern="hybrid"}'] >= 1
    assert scraped("web")['aswhom_webhooks_total{outcome="accepted",source="github"}'] >= 1
    assert scraped("web")["aswhom_revocation_effective_seconds_count"] >= 1
    assert scraped("worker-1")['aswhom_refreshes_total{outcome="success",provider="github"}'] >= 1
    wait(lambda: scraped("revocations").get("aswhom_revocation_seconds_count", 0) >= 1, "a revocation's seconds")
    wait(lambda: 'aswhom_queue_depth{pattern="hybrid"}' in scraped("housekeeping"), "the queue's depth")
    assert "aswhom_beat_slots_total" in scraped("beat")


def test_every_panel_is_answered_by_a_prometheus_that_scraped_the_run(watched: tuple[Observed, Prometheus]) -> None:
    observed, server = watched

    def seen(query: str) -> bool:
        return bool(server.query(query))

    for dashboard in FILES.values():
        for panel in dashboard.panels:
            for query in panel.queries.values():
                asked = query.replace("$__rate_interval", "1m")
                observed.system.wait(partial(seen, asked), f"an answer to {dashboard.uid}, {panel.title}")


def test_what_the_run_did_is_seen_on_its_panels(watched: tuple[Observed, Prometheus]) -> None:
    observed, server = watched

    def moved(query: str) -> bool:
        values = [float(sample["value"][1]) for sample in server.query(query)]
        return any(isfinite(value) and value > 0 for value in values)

    panels = {(one.uid, panel.title): panel for one in FILES.values() for panel in one.panels}
    still = {
        # What stands in for a series that nothing counted yet is no answer here.
        (uid, title, query.replace("$__rate_interval", "5m").removesuffix(" or vector(0)"))
        for uid, titles in MOVED.items()
        for title in titles
        for query in panels[uid, title].queries.values()
    }

    def all_moved() -> bool:
        still.difference_update({one for one in still if moved(one[-1])})
        return not still

    try:
        observed.system.wait(all_moved, "something on every one of these panels")
    finally:
        assert not still, sorted(title for _, title, _ in still)


def test_every_alert_is_evaluated_and_none_fires_over_a_run_in_order(watched: tuple[Observed, Prometheus]) -> None:
    observed, server = watched
    observed.system.wait(lambda: all(rule["health"] == "ok" for rule in server.rules()), "an evaluation of each rule")
    assert len(server.rules()) > 20
    assert {rule["name"] for rule in server.rules() if rule["state"] == "firing"} == {"AswhomAlwaysFiring"}
