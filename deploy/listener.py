"""Listens to supervisord's events: tells of processes that end, and ends all of it when one cannot be kept running.

supervisord itself would go on with what is left, and exit with 0. The protocol is lines on standard output:
http://supervisord.org/events.html
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from deploy import logs, process

log = logging.getLogger(__name__)

#: Its parent, whichever way this one ends.
_SUPERVISORD = os.getppid()


def main(fatal_file: Path) -> int:
    """Answer events until standard input ends."""
    settings = process.settings_or_exit()
    logs.configure("supervisor", format=settings.log_format, level=settings.log_level)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    while True:
        sys.stdout.write("READY\n")
        sys.stdout.flush()
        header = _words(sys.stdin.readline())
        if not header:
            return 0
        event = _words(_payload(sys.stdin, int(header["len"])))
        tell(header["eventname"], event)
        if header["eventname"] == "PROCESS_STATE_FATAL":
            with suppress(OSError):  # a full disk may be why it cannot be kept running, and must not keep the rest up
                fatal_file.write_text(event["processname"], encoding="utf-8")
            os.kill(_SUPERVISORD, signal.SIGTERM)
        sys.stdout.write("RESULT 2\nOK")
        sys.stdout.flush()


def tell(name: str, event: dict[str, str]) -> None:
    """A line of the log for one event; an exit that was asked for is none."""
    of = event.get("processname", "")
    match name:
        case "PROCESS_STATE_EXITED":
            log.warning("%s ended and is started again", of, extra={"action": "process.ended", "pid": event.get("pid")})
        case "PROCESS_STATE_BACKOFF":
            log.warning(
                "%s ended before it was up and is tried again", of, extra={"action": "process.retried", "of": of}
            )
        case _:
            log.critical(
                "%s cannot be kept running, so everything stops: its own lines above say why",
                of,
                extra={"action": "process.given_up"},
            )


def _payload(stream: TextIO, length: int) -> str:
    return stream.read(length)


def _words(line: str) -> dict[str, str]:
    return dict(word.split(":", 1) for word in line.split())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
