"""Times in command output: local time with its offset from UTC."""

from __future__ import annotations

from datetime import datetime


def local_time(moment: datetime) -> str:
    """Format a moment for people, in a form that `--since` accepts. JSON output has it in full."""
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")
