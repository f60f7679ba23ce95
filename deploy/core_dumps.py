"""Protects the memory of processes that hold keys: no core dumps, and no debugger except root's."""

from __future__ import annotations

import ctypes
import resource
import sys

_SET_DUMPABLE = 4  # https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html


def keep_memory_private() -> None:
    """Disable core dumps; call it before reading a key. A size limit does not stop cores piped to systemd-coredump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
