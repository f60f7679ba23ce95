"""Metrics are for everybody: their labels come from closed sets, and they are served on loopback."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from prometheus_client.metrics import MetricWrapperBase

from identity import metrics as identity_metrics
from pipeline import metrics
from pipeline.broker.liveness import Hearing
from pipeline.exposition import serve
from tests.servers.process import free_port
from tests.waiting import PATIENCE
from webhooks import metrics as webhooks_metrics

CLOSED = {
    "source", "pattern", "action", "duty", "outcome", "state", "provider", "endpoints", "catch_up", "wait", "how",
    "why", "what", "queue", "route", "method", "status", "version", "revision",
    "transmitter",  # by the ids that an operator registered
    "workflow",  # by the names of the installed ones
}  # fmt: skip
METRICS = {
    metric._name: metric
    for module in (identity_metrics, metrics, webhooks_metrics)
    for name, metric in vars(module).items()
    # `_newest` stands in for a metric of the client library, under its name.
    if isinstance(metric, MetricWrapperBase) and not name.startswith("_")
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_no_label_can_name_a_tenant_a_user_or_a_job(metric: MetricWrapperBase) -> None:
    assert set(metric._labelnames) <= CLOSED
    assert metric._name.startswith("aswhom_")


def test_a_process_answers_prometheus() -> None:
    port = free_port()
    stop = serve(port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
            assert b"aswhom_bells_total" in answer.read()
    finally:
        stop()


def test_a_process_says_whether_it_is_well() -> None:
    port, well = free_port(), [True]
    stop = serve(port, is_well=lambda: well[0])
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE) as answer:
            assert answer.status == 200
        well[0] = False
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE)
    finally:
        stop()


def test_a_process_is_ready_once_it_has_begun() -> None:
    port, hearing = free_port(), Hearing()
    stop = serve(port, is_well=hearing.is_well, is_ready=hearing.has_begun)
    try:
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE) as answer:
            assert answer.status == 200
        hearing.begin()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE) as answer:
            assert answer.status == 200
    finally:
        stop()
