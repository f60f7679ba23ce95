"""Every alert fires for what it is for and lets pass what it is not for, as promtool reckons; the runbook has it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import procfile
from identity import metrics as of_identity
from pipeline import metrics as of_pipeline
from tests.docs.metrics import metrics_of
from tests.docs.pages import ROOT, page, section
from tests.watch.alerts import ALERTS, Alert
from webhooks.metrics import WEBHOOKS

RULES = ROOT / "deploy/prometheus/alerts.yml"
SHIPPED = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
DECLARED = {rule["alert"]: rule for rule in SHIPPED}  # the last of a name: what differs is what it looks at
_NOT_OF_IT = (of_pipeline.DUTY_STUCK, of_pipeline.CONSUMER_LISTENED, of_pipeline.CONSUMER_TRIED)
#: Those of the ledger, which a duty measures.
GAUGES = re.compile(
    "|".join(
        rf"\b{gauge._name}\b"
        for module in (of_identity, of_pipeline)
        for gauge in metrics_of(module)
        if gauge._type == "gauge" and gauge not in _NOT_OF_IT
    )
)


WEB, RUNBOOK = "https://aswhom.example", "https://docs.example/runbook.md"


def console_path(name: str) -> str:
    """The console's page of that alert, or nothing."""
    return str(DECLARED[name]["annotations"].get("console", "")).rpartition("}}")[2]


def test_every_alert_has_its_case() -> None:
    assert sorted(ALERTS) == sorted(DECLARED)


def test_what_an_alert_counts_at_the_receiver_begins_at_0() -> None:
    """Prometheus sees no increase where a series begins at 1."""
    watched = re.findall(r'aswhom_webhooks_total\{[^}]*outcome="([\w-]+)"', RULES.read_text(encoding="utf-8"))
    begun = {sample.labels["outcome"] for metric in WEBHOOKS.collect() for sample in metric.samples}
    assert watched
    assert begun.issuperset(watched)


@pytest.mark.parametrize("name", [name for name in DECLARED if console_path(name)])
def test_the_section_of_an_alert_that_has_a_page_of_the_console_names_it(name: str) -> None:
    assert f"`{console_path(name)}`" in section(page("runbook.md"), name)


def test_whoever_has_not_said_where_the_runbook_is_finds_it_among_the_documents(promtool: Path, tmp_path: Path) -> None:
    alert = ALERTS["AswhomDeadLetters"]
    test = expect("AswhomDeadLetters", alert, alert.bad, fires=True)
    del test["external_labels"]
    (said,) = test["alert_rule_test"][0]["exp_alerts"]
    said["exp_annotations"] |= {"runbook_url": "docs/runbook.md#aswhomdeadletters", "console": "/console/dead"}
    assert judged([test], tmp_path, promtool) == ""


@pytest.mark.parametrize(
    "name", ["AswhomWorkWaits", "AswhomScheduleLate", "AswhomKeepaliveLate", "AswhomRevocationUnfinished"]
)
def test_what_a_hold_makes_late_wakes_nobody_while_it_stands_and_the_documents_say_which(
    promtool: Path, tmp_path: Path, name: str
) -> None:
    alert = ALERTS[name]
    held = {'aswhom_held{process="housekeeping"}': "1x20"}
    released = {'aswhom_held{process="housekeeping"}': "0x20"}
    tests = [
        expect(name, alert, {**alert.bad, **held}, fires=False),
        expect(name, alert, {**alert.bad, **released}, fires=True),
    ]
    assert judged(tests, tmp_path, promtool) == ""
    assert name in section(page("runbook.md"), "AswhomHeld")
    assert f"`{name}`" in section(page("operations.md"), "Hold everything")


def test_two_lone_failures_of_a_quiet_installation_page_nobody(promtool: Path, tmp_path: Path) -> None:
    alert = replace(ALERTS["AswhomRequestsFail"], after=14)
    lone = {'aswhom_http_requests_total{route="/v1/jobs",status="503"}': "0x5 1x3 2x20"}
    assert judged([expect("AswhomRequestsFail", alert, lone, fires=False)], tmp_path, promtool) == ""


def test_an_old_backup_is_missed_in_its_own_namespace_if_the_scrape_renames_it(promtool: Path, tmp_path: Path) -> None:
    """Without `honor_labels`, `namespace` is that of kube-state-metrics, for the cron jobs of every namespace."""
    alert = ALERTS["AswhomBackupOld"]
    theirs = '{namespace="metrics",exported_namespace='
    renamed = {series.replace("{namespace=", theirs): values for series, values in alert.bad.items()}
    labels = {"namespace": "metrics", "exported_namespace": "live", "cronjob": "aswhom-kept"}
    tests = [expect("AswhomBackupOld", replace(alert, labels=labels), renamed, fires=True)]
    assert judged(tests, tmp_path, promtool) == ""


def test_one_revocation_of_very_many_people_that_was_slow_wakes_nobody(promtool: Path, tmp_path: Path) -> None:
    slow = {
        'aswhom_revocation_effective_seconds_bucket{le="1.0"}': "0x20",
        'aswhom_revocation_effective_seconds_bucket{le="2.5"}': "0x5 1x15",
        'aswhom_revocation_effective_seconds_bucket{le="+Inf"}': "0x5 1x15",
    }
    name = "AswhomRevocationSlow"
    tests = [expect(name, replace(ALERTS[name], after=after), slow, fires=False) for after in (8, 12, 16)]
    assert judged(tests, tmp_path, promtool) == ""


def expect(name: str, alert: Alert, series: Mapping[str, str], *, fires: bool) -> dict[str, Any]:
    labels = {**(alert.labels or {}), **DECLARED[name]["labels"]}
    links = {
        "runbook_url": f"{RUNBOOK}#{name.lower()}",
        **({"console": f"{WEB}{where}"} if (where := console_path(name)) else {}),
    }
    said = [{"exp_labels": labels, "exp_annotations": {"summary": alert.says, **links}}] if fires else []
    return {
        "name": f"{name} {'fires' if fires else 'is quiet'}",
        "interval": "1m",
        "external_labels": {"console": WEB, "runbook": RUNBOOK},
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{alert.after}m", "alertname": name, "exp_alerts": said}],
    }


def judged(tests: list[dict[str, Any]], folder: Path, promtool: Path) -> str:
    """What promtool says of these expectations; empty: they hold.

    Each is of one alert, and promtool reckons all rules of a file for each minute of each: so each has its alert alone.
    """
    files = []
    for number, test in enumerate(tests):
        (asked,) = test["alert_rule_test"]
        (folder / f"{asked['alertname']}.yml").write_text(json.dumps(_of_alert(asked["alertname"])), encoding="utf-8")
        document = {"rule_files": [f"{asked['alertname']}.yml"], "evaluation_interval": "1m", "tests": [test]}
        files.append(folder / f"tests-{number}.yml")
        files[-1].write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    return _told(files, promtool)


def _of_alert(name: str) -> dict[str, Any]:
    """A file of rules with that alert and no other."""
    return {"groups": [{"name": "one", "rules": [rule for rule in SHIPPED if rule["alert"] == name]}]}


def _told(files: list[Path], promtool: Path) -> str:
    done = subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_fires_and_says_what_is_wrong(promtool: Path, tmp_path: Path) -> None:
    assert judged([expect(name, one, one.bad, fires=True) for name, one in ALERTS.items()], tmp_path, promtool) == ""


def test_no_alert_fires_for_what_is_in_order(promtool: Path, tmp_path: Path) -> None:
    tests = [expect(name, one, one.good, fires=False) for name, one in ALERTS.items() if one.good is not None]
    assert len(tests) == len(ALERTS) - 1
    assert judged(tests, tmp_path, promtool) == ""


@pytest.mark.parametrize("name", [name for name, rule in DECLARED.items() if GAUGES.search(rule["expr"])])
def test_one_measurement_that_failed_neither_ends_an_alert_nor_delays_it(
    name: str, promtool: Path, tmp_path: Path
) -> None:
    """Its gauges show no number then, which is greater than nothing."""
    alert = ALERTS[name]
    ((series, values),) = alert.bad.items()
    value = re.split(r"[ x]", values)[-2]
    gaps = [{series: f"{value}x{at - 1} NaN {value}x5"} for at in (alert.after - 1, alert.after)]
    tests = [expect(name, alert, gap, fires=True) for gap in gaps]
    away = {series: f"{value}x{alert.after}" + " NaN" * 5}  # what is not known for minutes fires no more
    tests.append(expect(name, replace(alert, after=alert.after + 4), away, fires=False))
    assert judged(tests, tmp_path, promtool) == ""


def test_all_alerts_are_reckoned_together_as_they_are_shipped(promtool: Path, tmp_path: Path) -> None:
    name, alert = "AswhomWorkWaits", ALERTS["AswhomWorkWaits"]
    tests = [expect(name, alert, alert.bad, fires=True), expect(name, alert, alert.good or {}, fires=False)]
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(json.dumps(document), encoding="utf-8")
    assert _told([tmp_path / "tests.yml"], promtool) == ""


def test_promtool_would_have_told(promtool: Path, tmp_path: Path) -> None:
    name, alert = "AswhomWorkWaits", ALERTS["AswhomWorkWaits"]
    assert name in judged([expect(name, alert, alert.good or {}, fires=True)], tmp_path, promtool)
    assert name in judged([expect(name, alert, alert.bad, fires=False)], tmp_path, promtool)


@pytest.mark.parametrize("workers", [("worker",), ("worker-1", "worker-2")], ids=["of Compose", "of one machine"])
def test_the_last_process_of_a_kind_is_missed_by_its_name(
    workers: tuple[str, ...], promtool: Path, tmp_path: Path
) -> None:
    """Housekeeping has a rule of its own; a beat is missed by its heartbeat, where there are schedules."""
    kinds = {one.name: (one.name,) for one in procfile.read()} | {"worker": workers}
    tests = []
    for kind in kinds:
        left = {
            f'up{{job="aswhom",process="{name}"}}': "1x5"
            for other, names in kinds.items()
            for name in names
            if other != kind
        }
        missing = Alert(
            after=3, bad=left, good={}, says=f"no process {kind} is scraped", labels={"job": "aswhom", "process": kind}
        )
        tests.append(expect("AswhomProcessMissing", missing, left, fires=kind not in ("housekeeping", "beat")))
    assert judged(tests, tmp_path, promtool) == ""


def of_duty(duty: str, *, done: str, failed: str, after: int, fires: bool) -> dict[str, Any]:
    whose = f'duty="{duty}",instance="a:1"'
    counted = {
        f'aswhom_duty_seconds_count{{{whose},outcome="{outcome}"}}': values
        for outcome, values in (("done", done), ("failed", failed))
    }
    says, labels = f"the duty {duty} of a:1 keeps failing", {"duty": duty, "instance": "a:1"}
    alert = Alert(after=after, bad={}, good={}, says=says, labels=labels)
    return expect("AswhomDutyFails", alert, counted, fires=fires)


def test_a_duty_fails_by_its_own_pace_and_not_for_one_outage(promtool: Path, tmp_path: Path) -> None:
    outage = [
        of_duty("dispatch", done="0+240x20 4800x5 4800+240x80", failed="0x20 0+60x5 300x80", after=after, fires=False)
        for after in (*range(20, 50, 3), 85)
    ]
    # Its tick takes eleven minutes and comes to nothing.
    slow = of_duty("catch-up", done="0x60", failed="0x10 1x10 2x10 3x10 4x10", after=40, fires=True)
    assert judged([*outage, slow], tmp_path, promtool) == ""


def test_a_duty_fails_that_meets_one_thing_again_and_again_and_does_the_rest(promtool: Path, tmp_path: Path) -> None:
    """A signal that cannot go on has a turn a minute, and the duty ticks sixty times meanwhile."""
    for_ever = of_duty("signals", done="0+59x80", failed="0+1x80", after=75, fires=True)
    mended = [
        of_duty("signals", done="0+59x80", failed="0+1x35 35x45", after=after, fires=False) for after in (40, 60, 80)
    ]
    assert judged([for_ever, *mended], tmp_path, promtool) == ""


def test_a_kind_of_process_is_missed_by_a_rule_of_its_own() -> None:
    """Who does without one takes its rule out."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"] if rule["alert"] == "AswhomProcessMissing"]
    told = [re.findall(r'process=~?"([a-z]+)', rule["expr"]) for rule in rules]
    assert told == [["web"], ["revocations"], ["worker"]]
    assert [{**rule, "expr": ""} for rule in rules] == [{**rules[0], "expr": ""}] * 3


def test_the_rules_and_the_configuration_are_in_order(promtool: Path) -> None:
    for kind, file in (("rules", RULES), ("config", RULES.with_name("prometheus.yml"))):
        done = subprocess.run([promtool, "check", kind, file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_prometheus_takes_the_stanza_that_says_where_alerts_go(promtool: Path, tmp_path: Path) -> None:
    (stanza,) = re.findall(r"```yaml\n(.*?)```", section(page("operations.md"), "Watch it"), re.DOTALL)
    assert "alerting" in yaml.safe_load(stanza)
    (tmp_path / "alerts.yml").write_text(RULES.read_text(encoding="utf-8"), encoding="utf-8")
    for shipped in ("prometheus/prometheus.yml", "compose/prometheus.yml"):
        whole = (ROOT / "deploy" / shipped).read_text(encoding="utf-8") + stanza
        (tmp_path / "prometheus.yml").write_text(whole, encoding="utf-8")
        done = subprocess.run(
            [promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", DECLARED)
def test_the_runbook_says_what_it_means_and_what_to_do(name: str) -> None:
    text = section(page("runbook.md"), name)
    assert "**Means**" in text
    assert "**Do**" in text


def test_the_runbook_has_no_alert_that_there_is_not() -> None:
    assert sorted(re.findall(r"^### (Aswhom\w+)$", page("runbook.md"), re.MULTILINE)) == sorted(DECLARED)
