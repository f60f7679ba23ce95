"""What is shipped for other machines runs the very processes of the Procfile, under settings and ports there are."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy import procfile
from deploy.procfile import Process
from deploy.setting_faults import unknown
from deploy.settings import PREFIX, Settings
from deploy.up import patience
from tests.docs.pages import ROOT

COMPOSE = yaml.safe_load((ROOT / "deploy/compose/compose.yml").read_text(encoding="utf-8"))
CLUSTER = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/aswhom.yml").read_text(encoding="utf-8")))
BESIDE = {"setup", "postgres", "valkey", "prometheus", "grafana"}
PROCESSES = {process.name: process for process in procfile.read()}


def pods() -> list[dict[str, Any]]:
    """What a pod is made by, of each deployment and of the job."""
    return [one["spec"]["template"]["spec"] for one in CLUSTER if one["kind"] in ("Deployment", "Job")]


def within(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Every container of a pod, those that run first too."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The name, the container and the pod of each deployment."""
    for document in CLUSTER:
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            yield container["name"], container, pod


def ports() -> dict[str, int]:
    """By the settings' defaults; the web answers where both files have it listen."""
    return {"web": 8080} | {name: Settings().metrics_port(name) for name in PROCESSES if name != "web"}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=lambda one: one.name)
def test_a_process_has_the_same_command_everywhere(process: Process) -> None:
    assert tuple(shlex.split(COMPOSE["services"][process.name]["command"])) == process.command
    commands = {name: tuple(container["command"]) for name, container, _ in containers()}
    assert commands[process.name] == process.command


def test_nothing_else_runs() -> None:
    assert COMPOSE["services"].keys() == PROCESSES.keys() | BESIDE
    assert sorted(name for name, _, _ in containers()) == sorted(PROCESSES)


def test_every_setting_is_one_there_is() -> None:
    (settings,) = (document["data"] for document in CLUSTER if document["kind"] == "ConfigMap")
    text = (ROOT / "deploy/compose/Dockerfile").read_text(encoding="utf-8")
    named = {*settings, *COMPOSE["x-aswhom"]["environment"], *re.findall(r"ASWHOM_\w+", text)}
    assert {name.removeprefix("ASWHOM_").lower() for name in named} <= Settings.model_fields.keys()


def test_a_cluster_adds_no_variables_that_would_be_refused_as_settings() -> None:
    """For each service there is, unless told not to: https://kubernetes.io/docs/concepts/services-networking/service/."""
    (service,) = (one["metadata"]["name"] for one in CLUSTER if one["kind"] == "Service")
    added = f"{service.upper().replace('-', '_')}_SERVICE_HOST"
    assert unknown({added: "10.0.0.1"}, known=Settings.model_fields, prefix=PREFIX)
    assert [pod.get("enableServiceLinks") for pod in pods()] == [False] * (1 + len(PROCESSES))


def test_a_process_is_given_the_time_that_a_running_call_takes() -> None:
    needed = patience(Settings()).total_seconds()
    assert float(COMPOSE["x-aswhom"]["stop_grace_period"].removesuffix("s")) >= needed
    assert all(pod["terminationGracePeriodSeconds"] >= needed for _, _, pod in containers())


def test_on_a_cluster_a_process_waits_for_its_versions_tables_and_the_web_for_its_last_requests() -> None:
    for name, container, pod in containers():
        (waiting,) = pod["initContainers"]
        assert "until aswhom tenants list" in waiting["command"][-1]
        assert (waiting["envFrom"], waiting["image"]) == (container["envFrom"], container["image"])
        assert ("preStop" in container.get("lifecycle", {})) == (name == "web")


def test_on_a_cluster_a_worker_that_is_deaf_is_ended() -> None:
    probed = {name: one["livenessProbe"]["httpGet"] for name, one, _ in containers() if "livenessProbe" in one}
    assert {name: probe["port"] for name, probe in probed.items()} == {
        name: port for name, port in ports().items() if name in ("web", "worker", "revocations")
    }
    assert {probe["path"] for probe in probed.values()} == {"/healthz"}


def test_on_a_cluster_a_worker_has_five_minutes_to_import_workflows_in() -> None:
    starting = {name: one["startupProbe"] for name, one, _ in containers() if "startupProbe" in one}
    assert {name: probe["httpGet"] for name, probe in starting.items()} == {
        name: one["livenessProbe"]["httpGet"] for name, one, _ in containers() if name in ("worker", "revocations")
    }
    assert {probe["periodSeconds"] * probe["failureThreshold"] for probe in starting.values()} == {300}


def test_every_process_is_scraped_where_it_answers() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text(encoding="utf-8"))
    (job,) = scraped["scrape_configs"]
    assert job["job_name"] == "aswhom"
    assert {one["names"][0]: one["port"] for one in job["dns_sd_configs"]} == ports()
    of_cluster = {
        document["spec"]["template"]["spec"]["containers"][0]["name"]: int(
            document["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
        )
        for document in CLUSTER
        if document["kind"] == "Deployment"
    }
    assert of_cluster == ports()


def test_the_broker_never_evicts_and_postgresql_takes_enough_connections() -> None:
    assert "--maxmemory-policy noeviction" in COMPOSE["services"]["valkey"]["command"]
    (most,) = re.findall(r"max_connections=(\d+)", COMPOSE["services"]["postgres"]["command"])
    started = sum(COMPOSE["services"][name].get("deploy", {}).get("replicas", 1) for name in PROCESSES)
    assert int(most) >= 34 * (started + 1)  # the web runs two processes on PostgreSQL


def test_one_service_builds_the_image_and_none_pulls_it() -> None:
    """Builds that end at once with the same name fail each other, and Docker Hub's `aswhom` is not this one."""
    services = COMPOSE["services"]
    assert [name for name, service in services.items() if "build" in service] == ["setup"]
    assert all(services[name]["pull_policy"] == "never" for name in [*PROCESSES, "setup"])


def test_a_process_of_compose_hears_sigterm_while_it_starts() -> None:
    """The first process of a container ignores it until it has a handler, and is killed 40 s later."""
    assert all(COMPOSE["services"][name]["init"] is True for name in [*PROCESSES, "setup"])


def test_postgresql_is_not_healthy_while_it_makes_its_data_directory() -> None:
    """The image then listens on its socket alone, and takes as long as the disk does."""
    health = COMPOSE["services"]["postgres"]["healthcheck"]
    assert "-h 127.0.0.1" in " ".join(health["test"])
    assert health["start_period"] == "60s"


def test_nothing_but_a_proxys_port_is_published() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_a_namespace_that_enforces_the_restricted_standard_takes_every_pod() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    for pod in pods():
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert [one["securityContext"]["capabilities"] for one in within(pod)] == [{"drop": ["ALL"]}] * len(within(pod))
        assert all(volume.keys() - {"name"} <= {"secret", "emptyDir"} for volume in pod["volumes"])


def test_keys_are_not_readable_by_others_and_nothing_is_or_becomes_root() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert [one["securityContext"]["allowPrivilegeEscalation"] for one in within(pod)] == [False] * len(within(pod))
        (keys,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "keys")
        assert keys["defaultMode"] & 0o007 == 0


def test_a_cluster_is_told_what_each_process_takes() -> None:
    for name, container, _ in containers():
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name


def test_what_is_mounted_from_the_checkout_is_there() -> None:
    folder = ROOT / "deploy/compose"
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", ())]
    for mount in mounts:
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (folder / source).exists(), mount


def test_the_image_is_made_of_what_it_is_built_from_and_not_of_what_lies_beside_it() -> None:
    text = (ROOT / "deploy/compose/Dockerfile.dockerignore").read_text(encoding="utf-8")
    first, *others = [line for line in text.splitlines() if not line.startswith("#")]
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    built_from = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "requirements"}
    assert first == "*"
    assert {line.removeprefix("!") for line in others[: len(built_from)]} == built_from
    # What comes last wins, and Compose's passwords lie in deploy/compose/.env.
    assert {"**/.*", "**/*.pem", "**/*secret*.txt"} <= set(others[len(built_from) :])
    assert not any(line.startswith("!") for line in others[len(built_from) :])
