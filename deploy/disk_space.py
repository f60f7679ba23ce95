"""Free space on the data directory's disk, which an SQLite ledger and key rotation need."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

ENOUGH = 500_000_000  # bytes; with less, a growing ledger will soon refuse writes


def free(directory: Path) -> float:
    """Return the free bytes there, or NaN if the system does not tell."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return math.nan


def show(directory: Path) -> None:
    """Export the free space as a metric, measured at each scrape."""
    from pipeline.metrics import show_room

    show_room(lambda: free(directory))
