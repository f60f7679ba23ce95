"""Turns between the processes that write to one SQLite file: locks of the kernel, which end with their process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class WriteGate:
    """Whoever has passed it writes. To come here without a turn is to go before all who wait for theirs."""

    def __init__(self, database: Path) -> None:
        self._gate = _lock_file(f"{database}.gate")

    def enter(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_EX)

    def enter_at_once(self) -> bool:
        """Enter if nobody has to be waited for."""
        return _locked_at_once(self._gate)

    def leave(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._gate)


class Turnstile(WriteGate):
    """First the turn, then the gate: fair between processes, where SQLite's own busy handler starves a waiter."""

    def __init__(self, database: Path) -> None:
        super().__init__(database)
        self._turn = _lock_file(f"{database}.turn")

    def enter(self) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            super().enter()
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def enter_at_once(self) -> bool:
        if not _locked_at_once(self._turn):
            return False  # somebody waits for the gate
        try:
            return super().enter_at_once()
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._turn)
        super().close()


def _locked_at_once(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # or no lock can be had at all, which is found out again by who waits for it
        return False
    return True


def _lock_file(path: str) -> int:
    """A descriptor of its own, since `flock` keeps out other descriptors and not other threads."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
