"""Turns between processes that write to one SQLite file, by kernel locks, which end with their process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class WriteGate:
    """The lock that a writer must hold. Entering without a turn goes ahead of all who wait for theirs."""

    def __init__(self, database: Path) -> None:
        self._gate = _lock_file(f"{database}.gate")

    def enter(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_EX)

    def enter_at_once(self) -> bool:
        """Enter if that needs no waiting; return whether it did."""
        return _locked_at_once(self._gate)

    def leave(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._gate)


class Turnstile(WriteGate):
    """A turn, then the gate: fair between processes, where SQLite's busy handler starves a waiter."""

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
            return False  # somebody is waiting for the gate
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
    except OSError:  # or locking fails altogether, which the waiting call will find out
        return False
    return True


def _lock_file(path: str) -> int:
    """Open a separate descriptor, since `flock` excludes other descriptors but not other threads."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
