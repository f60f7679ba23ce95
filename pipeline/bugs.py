"""Logging of bugs in foreign code: the class and the location, never the text, which may quote an answer."""

from __future__ import annotations

import logging
import traceback


def log_bug(log: logging.Logger, what: str, bug: BaseException, *, action: str) -> None:
    """Log that *what* could not be done, with the lines involved, but no text from *bug* or its cause."""
    frames = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_tb(bug.__traceback__)]
    name = type(bug).__name__
    log.error("%s: %s at %s", what, name, ", ".join(frames), extra={"action": action, "error": name})
