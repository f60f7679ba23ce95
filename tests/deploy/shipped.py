"""What is shipped for other machines, read: the files of Compose and of Kubernetes, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from deploy import procfile
from deploy.settings import Settings
from tests.docs.pages import ROOT

COMPOSE = yaml.safe_load((ROOT / "deploy/compose/compose.yml").read_text(encoding="utf-8"))
KUBERNETES = {
    file.stem: list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    for file in sorted((ROOT / "deploy/kubernetes").glob("*.yml"))
}
CLUSTER = KUBERNETES["aswhom"]
BESIDE = {"setup", "postgres", "valkey", "prometheus", "grafana"}
PROCESSES = {process.name: process for process in procfile.read()}


def pods() -> list[dict[str, Any]]:
    """What a pod is made by, of everything that makes one."""
    return [pod for documents in KUBERNETES.values() for one in documents if (pod := pod_of(one))]


def pod_of(one: dict[str, Any]) -> dict[str, Any] | None:
    """What it makes pods by, if it makes any."""
    spec: dict[str, Any] = one.get("spec", {})
    if one["kind"] == "Pod":
        return spec
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return template["spec"] if template else None


def ours() -> list[dict[str, Any]]:
    """The pods that run Aswhom's image."""
    return [pod for pod in pods() if all(one["image"] == "aswhom" for one in within(pod))]


def deployments() -> dict[str, dict[str, Any]]:
    """By the process that each runs, its spec."""
    return {
        one["metadata"]["name"].removeprefix("aswhom-"): one["spec"] for one in CLUSTER if one["kind"] == "Deployment"
    }


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
    """Where each serves metrics: by the settings' defaults, and the web where both files have it."""
    return {"web": 9110} | {name: Settings().metrics_port(name) for name in PROCESSES if name != "web"}
