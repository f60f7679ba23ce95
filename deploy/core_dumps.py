"""What is in the memory of a process that holds keys stays there: no core file, and no debugger but root's."""

from __future__ import annotations

import ctypes
import resource
import sys

_SET_DUMPABLE = 4  # https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html


def keep_memory_private() -> None:
    """Before a key is read. A limit alone holds for files, and not where cores are piped to systemd-coredump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
