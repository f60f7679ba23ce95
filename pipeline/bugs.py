"""A bug of somebody's own code, as the log tells it: its class and where, never its text, which may quote an answer."""

from __future__ import annotations

import logging
import traceback


def log_bug(log: logging.Logger, what: str, bug: BaseException, *, action: str) -> None:
    """Say *what* could not be done, and by which lines; nothing that *bug* or what it came from says."""
    frames = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_tb(bug.__traceback__)]
    name = type(bug).__name__
    log.error("%s: %s at %s", what, name, ", ".join(frames), extra={"action": action, "error": name})
