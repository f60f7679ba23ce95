"""supervisord's event listener: logs processes that end, and stops everything when one cannot be kept running.

supervisord itself would go on with the remaining processes, and exit with 0. The protocol uses lines on standard
output: http://supervisord.org/events.html
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

#: Our parent, read at start.
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
            with suppress(OSError):  # a full disk may be the cause, and must not prevent the stop
                fatal_file.write_text(event["processname"], encoding="utf-8")
            os.kill(_SUPERVISORD, signal.SIGTERM)
        sys.stdout.write("RESULT 2\nOK")
        sys.stdout.flush()


def tell(name: str, event: dict[str, str]) -> None:
    """Log one event. A requested stop produces none."""
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
