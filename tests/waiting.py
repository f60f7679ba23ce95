"""Waiting on a condition, which says what it waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

# Seconds until what must come about, and does not, is a failure: a limit for what hangs, on a machine that others use
# too. It costs nothing where all is well.
PATIENCE = float(os.environ.get("TESTS_WAIT", "90"))


def eventually(
    condition: Callable[[], object],
    what: str = "",
    *,
    seconds: float = PATIENCE,
    log: Path | Callable[[], str] | None = None,
) -> None:
    """Wait until *condition* holds; AssertionError at the deadline, with the end of *log*, or what that says then."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            said = "\n".join(log.read_text().splitlines()[-40:]) if isinstance(log, Path) else log() if log else ""
            raise AssertionError(f"not within {seconds} s: {what or condition}\n{said}")
        time.sleep(0.01)
