"""Grafana dashboards as code: `python -m deploy.grafana` writes each as the JSON that Grafana imports."""
