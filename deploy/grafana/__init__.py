"""Grafana dashboards as code: `python -m deploy.grafana` writes each as JSON for import."""
