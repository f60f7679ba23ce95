"""Gauges of the ledger: they show no number where nobody measures them, or nobody can."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge


@contextmanager
def measuring(*gauges: Gauge) -> Iterator[None]:
    """Set *gauges* within. Where that fails they show no number: the last would pass for what holds now, and outlast
    what a healthy host measures, since of all hosts the greatest counts.
    """
    try:
        yield
    except BaseException:
        show_no_number(*gauges)
        raise


def show_no_number(*gauges: Gauge) -> None:
    """Until they are set. One without labels would begin at 0, in every process, and pass for what is in order."""
    for gauge in gauges:
        for metric in gauge.collect():
            for shown in metric.samples:
                (gauge.labels(**shown.labels) if shown.labels else gauge).set(math.nan)
