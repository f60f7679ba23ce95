"""Metrics are for everybody: their labels come from closed sets, and they are served on loopback."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client.metrics import MetricWrapperBase

from pipeline import metrics
from tests.servers.process import free_port

CLOSED = {"source", "pattern", "action", "duty", "outcome", "state", "provider", "endpoints", "catch_up", "wait"}
METRICS = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric._name)
def test_no_label_can_name_a_tenant_a_user_or_a_job(metric: MetricWrapperBase) -> None:
    assert set(metric._labelnames) <= CLOSED
    assert metric._name.startswith("aswhom_")


def test_a_process_answers_prometheus() -> None:
    port = free_port()
    stop = metrics.serve(port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b"aswhom_bells_total" in answer.read()
    finally:
        stop()
