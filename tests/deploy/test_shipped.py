"""What is shipped for other machines runs the very processes of the Procfile, under settings and ports there are."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib

import pytest
import yaml

from deploy import build
from deploy.ledger_connections import of_these
from deploy.procfile import Process
from deploy.settings import Settings
from deploy.up import patience
from tests.deploy.shipped import BESIDE, CLUSTER, COMPOSE, PROCESSES, containers, ports
from tests.docs.pages import ROOT


@pytest.mark.parametrize("process", PROCESSES.values(), ids=lambda one: one.name)
def test_a_process_has_the_same_command_everywhere(process: Process) -> None:
    assert tuple(shlex.split(COMPOSE["services"][process.name]["command"])) == process.command
    commands = {name: tuple(container["command"]) for name, container, _ in containers()}
    assert commands[process.name] == process.command


def test_compose_and_kubernetes_run_the_procfile_and_no_more() -> None:
    assert COMPOSE["services"].keys() == PROCESSES.keys() | BESIDE
    assert sorted(name for name, _, _ in containers()) == sorted(PROCESSES)


def test_every_setting_is_one_there_is() -> None:
    (settings,) = (document["data"] for document in CLUSTER if document["kind"] == "ConfigMap")
    text = (ROOT / "deploy/compose/Dockerfile").read_text(encoding="utf-8")
    named = {*settings, *COMPOSE["x-aswhom"]["environment"], *re.findall(r"ASWHOM_\w+", text)}
    assert {name.removeprefix("ASWHOM_").lower() for name in named} <= Settings.model_fields.keys()


def test_a_process_is_given_the_time_that_a_running_call_takes() -> None:
    needed = patience(Settings()).total_seconds()
    assert float(COMPOSE["x-aswhom"]["stop_grace_period"].removesuffix("s")) >= needed
    assert all(pod["terminationGracePeriodSeconds"] >= needed for _, _, pod in containers())


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
    (settings,) = (document["data"] for document in CLUSTER if document["kind"] == "ConfigMap")
    for of_all in (settings, COMPOSE["x-aswhom"]["environment"]):
        assert int(of_all["ASWHOM_WEB_METRICS_PORT"]) == ports()["web"]


def test_the_broker_never_evicts_and_postgresql_takes_enough_connections() -> None:
    assert "--maxmemory-policy noeviction" in COMPOSE["services"]["valkey"]["command"][-1]
    (most,) = re.findall(r"max_connections=(\d+)", COMPOSE["services"]["postgres"]["command"])
    started = {name: COMPOSE["services"][name].get("deploy", {}).get("replicas", 1) for name in PROCESSES}
    assert int(most) >= of_these(Settings(), started) + 20


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


def test_what_is_mounted_from_the_checkout_is_there() -> None:
    folder = ROOT / "deploy/compose"
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", ())]
    for mount in mounts:
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (folder / source).exists(), mount


def test_the_image_has_the_installed_code_alone_and_says_of_which_commit_it_is() -> None:
    """A checkout in the working directory would be what Celery and `python -m` run."""
    text = (ROOT / "deploy/compose/Dockerfile").read_text(encoding="utf-8")
    building, image = (stage.splitlines() for stage in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:])
    assert building[0].removesuffix(" AS build") == image[0]  # the environment's Python is the image's own
    assert [line for line in image if line.startswith("COPY")] == ["COPY --from=build /opt/aswhom /opt/aswhom"]
    (data,) = re.findall(r"ASWHOM_DATA_DIR=(\S+)", text)
    assert f"WORKDIR {data}" in image
    assert f"install -d -o aswhom -m 0700 {data}" in text
    (written,) = re.findall(r"> (\S+); fi", text)
    assert inspect.signature(build.revision).parameters["place"].default == ROOT / written
    assert COMPOSE["services"]["setup"]["build"]["args"].keys() == {"REVISION"}
    assert text.count("ARG REVISION") == 2


def test_the_image_is_made_of_what_it_is_built_from_and_not_of_what_lies_beside_it() -> None:
    text = (ROOT / "deploy/compose/Dockerfile.dockerignore").read_text(encoding="utf-8")
    first, *others = [line for line in text.splitlines() if not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    built_from = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"]}
    built_from |= {"pyproject.toml", "requirements"}
    assert first == "*"
    assert {line.removeprefix("!") for line in others[: len(built_from)]} == built_from
    # What comes last wins, and Compose's passwords lie in deploy/compose/.env.
    assert {"**/.*", "**/*.pem", "**/*secret*.txt"} <= set(others[len(built_from) :])
    assert not any(line.startswith("!") for line in others[len(built_from) :])
