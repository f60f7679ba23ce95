"""Gauges of the ledger that show NaN when they are not, or cannot be, measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge


@contextmanager
def measuring(*gauges: Gauge) -> Iterator[None]:
    """Set *gauges* inside the block.

    If it fails they show NaN: a stale value would look current, and would mask a healthy host's value because
    dashboards take the max over hosts.
    """
    try:
        yield
    except BaseException:
        show_no_number(*gauges)
        raise


def show_no_number(*gauges: Gauge) -> None:
    """Show NaN until the gauges are set. A gauge without labels would start at 0 in every process and look healthy."""
    for gauge in gauges:
        for metric in gauge.collect():
            for shown in metric.samples:
                (gauge.labels(**shown.labels) if shown.labels else gauge).set(math.nan)
