"""The alerts: `alerts.yml` for Prometheus, and their form for the Prometheus Operator on a cluster."""

from __future__ import annotations

from pathlib import Path

ALERTS = Path(__file__).with_name("alerts.yml")
ON_CLUSTER = Path(__file__).parents[1] / "kubernetes" / "alerts.yml"

_HEAD = """\
# deploy/prometheus/alerts.yml for the Prometheus Operator, by `python -m deploy.prometheus`: change that file, and
# run it. Of its Prometheus, `externalLabels` say where the console and your copy of the runbook are, and
# `ruleSelector` has to take this.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: aswhom, labels: {app: aswhom}}
spec:
"""


def on_cluster(alerts: str) -> str:
    """Return the groups as a PrometheusRule. Comments above them stay in `alerts.yml`."""
    groups = alerts[alerts.index("\ngroups:\n") + 1 :]
    return _HEAD + "".join(f"  {line}\n" if line else "\n" for line in groups.splitlines())
