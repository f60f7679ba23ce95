"""`python -m deploy.prometheus`: writes the alerts for a cluster."""

from __future__ import annotations

from deploy.prometheus import ALERTS, ON_CLUSTER, on_cluster

ON_CLUSTER.write_text(on_cluster(ALERTS.read_text(encoding="utf-8")), encoding="utf-8")
