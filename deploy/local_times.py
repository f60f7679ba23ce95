"""How a command says when: by the clock of the machine it is given on, with that clock's offset from UTC."""

from __future__ import annotations

from datetime import datetime


def local_time(moment: datetime) -> str:
    """A moment for people, as `--since` takes it. As JSON a document has it in full."""
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")
