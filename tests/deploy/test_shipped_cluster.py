"""What a cluster is given: pods that may do little, are watched, and go one after another."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from deploy.prometheus import ALERTS, ON_CLUSTER, on_cluster
from deploy.setting_faults import unknown
from deploy.settings import Settings
from deploy.variables import PREFIX
from tests.deploy.commands import every_command
from tests.deploy.shipped import (
    CLUSTER,
    COMPOSE,
    KUBERNETES,
    PROCESSES,
    containers,
    deployments,
    ours,
    pod_of,
    pods,
    ports,
    within,
)
from tests.docs.pages import ROOT


def test_a_cluster_adds_no_variables_that_would_be_refused_as_settings() -> None:
    """For each service there is, unless told not to: https://kubernetes.io/docs/concepts/services-networking/service/."""
    (service,) = (one["metadata"]["name"] for one in CLUSTER if one["kind"] == "Service")
    added = f"{service.upper().replace('-', '_')}_SERVICE_HOST"
    assert unknown({added: "10.0.0.1"}, known=Settings.model_fields, prefix=PREFIX)
    assert {pod.get("enableServiceLinks") for pod in pods()} == {False}


def test_on_a_cluster_a_process_waits_for_its_versions_tables_and_the_web_for_its_last_requests() -> None:
    for name, container, pod in containers():
        (waiting,) = pod["initContainers"]
        assert waiting["command"] == ["aswhom", "db", "wait"]
        assert (waiting["envFrom"], waiting["image"]) == (container["envFrom"], container["image"])
        assert ("preStop" in container.get("lifecycle", {})) == (name == "web")


def test_on_a_cluster_what_is_deaf_or_stuck_is_ended_and_no_web_whose_threads_wait_for_a_commit() -> None:
    probed = {name: one["livenessProbe"]["httpGet"] for name, one, _ in containers() if "livenessProbe" in one}
    assert probed == {name: {"path": "/healthz", "port": "metrics"} for name in ("worker", "revocations", "beat")}


def test_on_a_cluster_what_may_be_ended_has_five_minutes_to_import_workflows_in() -> None:
    starting = {name: one["startupProbe"] for name, one, _ in containers() if "startupProbe" in one}
    assert {name: probe["httpGet"] for name, probe in starting.items()} == {
        name: one["livenessProbe"]["httpGet"] for name, one, _ in containers() if "livenessProbe" in one
    }
    assert {probe["periodSeconds"] * probe["failureThreshold"] for probe in starting.values()} == {300}


def test_on_a_cluster_an_old_pod_goes_once_the_new_one_has_begun() -> None:
    ready = {name: one["readinessProbe"]["httpGet"] for name, one, _ in containers()}
    assert ready.keys() == PROCESSES.keys()
    assert {probe["path"] for probe in ready.values()} == {"/readyz"}
    assert all(spec["minReadySeconds"] >= 15 for spec in deployments().values())


def test_on_a_cluster_a_node_that_goes_takes_no_process_along() -> None:
    kept = {one["metadata"]["name"]: one["spec"]["selector"] for one in CLUSTER if one["kind"] == "PodDisruptionBudget"}
    assert kept == {f"aswhom-{name}": spec["selector"] for name, spec in deployments().items()}
    for name, spec in deployments().items():
        assert spec["replicas"] >= 2, name
        (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"] == spec["selector"]


def test_on_a_cluster_the_ports_have_names_that_probes_policies_and_prometheus_go_by() -> None:
    named = {name: one["ports"] for name, one, _ in containers()}
    listens = {"web": [{"name": "http", "containerPort": 8080}]}
    assert named == {
        name: [*listens.get(name, []), {"name": "metrics", "containerPort": port}] for name, port in ports().items()
    }
    (monitor,) = KUBERNETES["monitor"]
    assert [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]
    (service,) = (one["spec"] for one in CLUSTER if one["kind"] == "Service")
    assert [port["targetPort"] for port in service["ports"]] == ["http"]


def test_the_operators_prometheus_calls_the_job_as_the_alerts_do() -> None:
    (monitor,) = KUBERNETES["monitor"]
    for spec in deployments().values():
        labels = spec["template"]["metadata"]["labels"]
        assert labels[monitor["spec"]["jobLabel"]] == "aswhom"
        assert labels.keys() >= {*monitor["spec"]["podTargetLabels"], *monitor["spec"]["selector"]["matchLabels"]}
    assert monitor["spec"]["podTargetLabels"] == ["process"]


def test_a_cluster_has_the_alerts_that_there_are() -> None:
    alerts = ALERTS.read_text(encoding="utf-8")
    assert ON_CLUSTER.read_text(encoding="utf-8") == on_cluster(alerts), "run `python -m deploy.prometheus`"
    (rule,) = KUBERNETES["alerts"]
    assert rule["spec"] == yaml.safe_load(alerts)


def test_a_restore_is_not_taken_for_a_process_and_an_upgrade_does_not_wait_for_it() -> None:
    (shell,) = KUBERNETES["shell"]
    assert shell["metadata"]["labels"] == {"app": "aswhom", "process": "shell"}
    (container,) = shell["spec"]["containers"]
    _, worker, pod = next(one for one in containers() if one[0] == "worker")
    assert [container[name] for name in ("image", "envFrom", "volumeMounts")] == [
        worker[name] for name in ("image", "envFrom", "volumeMounts")
    ]
    assert shell["spec"]["volumes"] == pod["volumes"]
    for place in ("deploy/kubernetes/aswhom.yml", "docs/howto/run-on-many-hosts.md"):
        (waits,) = re.findall(r"kubectl wait .*process in \((.*)\)'", (ROOT / place).read_text(encoding="utf-8"))
        assert waits.split(", ") == list(PROCESSES), place


def test_an_upgrade_goes_on_where_the_last_ones_job_was_cleaned_up() -> None:
    for place in ("deploy/kubernetes/aswhom.yml", "docs/howto/run-on-many-hosts.md"):
        ended = re.findall(r"kubectl delete job (.*)aswhom-upgrade &&", (ROOT / place).read_text(encoding="utf-8"))
        assert ended == ["--ignore-not-found "], place


def test_a_release_on_a_cluster_has_a_terminal_to_ask_at() -> None:
    page = (ROOT / "docs/howto/run-on-many-hosts.md").read_text(encoding="utf-8")
    assert re.findall(r"kubectl exec ([^`]*)-- aswhom hold release`", page) == ["-it deploy/aswhom-web "]


def test_policies_of_a_clusters_network_are_of_pods_and_ports_there_are() -> None:
    every, *let_in = KUBERNETES["network"]
    assert every["spec"]["podSelector"] == {"matchLabels": {"app": "aswhom"}}
    assert (every["spec"]["policyTypes"], "ingress" in every["spec"]) == (["Ingress", "Egress"], False)
    out = {port["port"] for rule in every["spec"]["egress"] for port in rule["ports"]}
    assert out == {53, 443, 5432, 6379}
    # Of pods an `ipBlock` says nothing everywhere: a ledger in the same cluster is named by its namespace.
    (to,) = (rule["to"] for rule in every["spec"]["egress"] if "to" in rule)
    assert {"namespaceSelector": {}} in to
    assert all("0.0.0.0/0" not in str(rule) or "169.254.0.0/16" in str(rule) for rule in every["spec"]["egress"])
    ways = {one["metadata"]["name"]: one["spec"]["ingress"][0]["ports"] for one in let_in}
    assert ways == {"aswhom-web": [{"port": "http"}], "aswhom-metrics": [{"port": "metrics"}]}


def test_what_a_cluster_keeps_it_keeps_by_commands_there_are() -> None:
    jobs = {one["metadata"]["name"]: pod_of(one) for one in KUBERNETES["backup"] if one["kind"] == "CronJob"}
    (kept,) = jobs["aswhom-kept"]["containers"]  # type: ignore[index]
    beside = (ROOT / "deploy/compose/back-up").read_text(encoding="utf-8")
    there = dict(every_command())
    for script in (kept["command"][-1], beside):
        ran = re.findall(r"^ *aswhom (\w+ \w+) (--\w+)", script, re.MULTILINE)
        assert [name for name, _ in ran] == ["audit checkpoint", "revocations list", "audit export"]
        for name, option in ran:
            assert option in {word for one in there[name].params for word in one.opts}
    claims = {one["metadata"]["name"] for one in KUBERNETES["backup"] if one["kind"] == "PersistentVolumeClaim"}
    named = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in jobs.values()
        for volume in (pod or {})["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert named == claims
    secrets = [volume["secret"] for volume in (jobs["aswhom-dump"] or {})["volumes"] if "secret" in volume]
    assert [[item["key"] for item in secret["items"]] for secret in secrets] == [["authority.pem"]]
    (dump,) = jobs["aswhom-dump"]["containers"]  # type: ignore[index]
    assert dump["image"] == COMPOSE["services"]["postgres"]["image"]


def test_a_cron_job_that_hangs_ends_before_the_next_one_is_due() -> None:
    """With `Forbid` it would keep all later ones from starting."""
    jobs = {one["metadata"]["name"]: one["spec"] for one in KUBERNETES["backup"] if one["kind"] == "CronJob"}
    assert {job["concurrencyPolicy"] for job in jobs.values()} == {"Forbid"}
    within = {name: job["jobTemplate"]["spec"]["activeDeadlineSeconds"] for name, job in jobs.items()}
    assert within["aswhom-kept"] < 3600
    assert within["aswhom-dump"] < 24 * 3600


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_old_dumps_go_once_a_new_one_is_there(tmp_path: Path, fails: bool) -> None:
    (dump,) = (one for one in KUBERNETES["backup"] if one["metadata"]["name"] == "aswhom-dump")
    script = pod_of(dump)["containers"][0]["command"][-1]  # type: ignore[index]
    tools, dumps = tmp_path / "bin", tmp_path / "dumps"
    tools.mkdir()
    dumps.mkdir()
    makes = "exit 1" if fails else 'while [ "$1" != --file ]; do shift; done; echo new > "$2"'
    for name, does in (("pg_dump", makes), ("pg_restore", "exit 0")):
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o700)
    for name, days in (("ledger-old.dump", 16), ("ledger-recent.dump", 2), ("ledger-ended.dump.part", 1)):
        (dumps / name).write_text(name)
        at = time.time() - days * 86400
        os.utime(dumps / name, (at, at))
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "ASWHOM_DATABASE_URL": "postgresql://"}
    done = subprocess.run(["sh", "-euc", script], cwd=dumps, env=environment, check=False)
    left = {one.name for one in dumps.iterdir()}
    assert (done.returncode != 0) is fails
    assert "ledger-recent.dump" in left
    assert ("ledger-old.dump" in left) is fails
    assert (len(left), any(name.endswith(".part") for name in left)) == (2, False)


def test_a_namespace_that_enforces_the_restricted_standard_takes_every_pod() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    for pod in pods():
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert [one["securityContext"]["capabilities"] for one in within(pod)] == [{"drop": ["ALL"]}] * len(within(pod))
        assert all(
            volume.keys() - {"name"} <= {"secret", "emptyDir", "persistentVolumeClaim"} for volume in pod["volumes"]
        )


def test_keys_are_not_readable_by_others_and_nothing_is_or_becomes_root() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert [one["securityContext"]["allowPrivilegeEscalation"] for one in within(pod)] == [False] * len(within(pod))
    for pod in ours():
        (keys,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "keys")
        assert keys["defaultMode"] & 0o007 == 0


def test_on_a_cluster_nothing_is_written_but_what_is_mounted_and_nothing_has_a_key_to_the_cluster() -> None:
    assert {pod.get("automountServiceAccountToken") for pod in pods()} == {False}
    for pod in pods():
        assert {one["securityContext"]["readOnlyRootFilesystem"] for one in within(pod)} == {True}
    for pod in ours():
        for one in within(pod):
            assert {"/var/lib/aswhom", "/tmp"} <= {mount["mountPath"] for mount in one["volumeMounts"]}


def test_no_password_of_ours_is_in_an_environment_that_workflows_pass_on() -> None:
    (settings,) = (document["data"] for document in CLUSTER if document["kind"] == "ConfigMap")
    named = {name: path for name, path in settings.items() if name.endswith("_URL_FILE")}
    assert named.keys() == {"ASWHOM_DATABASE_URL_FILE", "ASWHOM_BROKER_URL_FILE"}
    for pod in ours():
        (secret,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "addresses")
        assert (secret["secretName"], secret["defaultMode"] & 0o007) == ("aswhom-addresses", 0)
        for one in within(pod):
            assert one["envFrom"] == [{"configMapRef": {"name": "aswhom"}}]
            (folder,) = (mount["mountPath"] for mount in one["volumeMounts"] if mount["name"] == "addresses")
            assert named == {name: f"{folder}/{name.removesuffix('_FILE')}" for name in named}


def test_a_process_that_leaks_is_ended_before_its_node_is_out_of_memory() -> None:
    limits = {name: one["resources"]["limits"]["memory"] for name, one, _ in containers()}
    assert limits == {name: "1Gi" if name == "web" else "512Mi" for name in PROCESSES}
    for name in PROCESSES:
        assert (COMPOSE["services"][name]["mem_limit"]) == ("1g" if name == "web" else "512m"), name


def test_a_cluster_is_told_what_each_container_takes() -> None:
    """One that says nothing is refused where a ResourceQuota is."""
    for pod in pods():
        for one in within(pod):
            assert one["resources"]["requests"].keys() == {"cpu", "memory"}, one["name"]
