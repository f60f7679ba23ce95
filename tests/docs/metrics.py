"""The metrics of a module."""

from __future__ import annotations

from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase


def metrics_of(module: ModuleType) -> list[MetricWrapperBase]:
    return [value for value in vars(module).values() if isinstance(value, MetricWrapperBase)]
