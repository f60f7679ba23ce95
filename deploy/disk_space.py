"""Room on the disk of the data directory, where a ledger on SQLite grows and keys are rotated."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

ENOUGH = 500_000_000  # bytes: below that a ledger that grows will soon refuse


def free(directory: Path) -> float:
    """How many bytes are free there; NaN where the machine does not say."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return math.nan


def show(directory: Path) -> None:
    """Have this process' metrics say it, anew each time that they are asked for."""
    from pipeline.metrics import show_room

    show_room(lambda: free(directory))
