"""How a command says when: by the clock of the machine it is given on, with that clock's zone."""

from __future__ import annotations

from datetime import datetime


def local_time(moment: datetime) -> str:
    """A moment for people. As JSON a document has it in full."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"
