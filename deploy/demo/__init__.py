"""The demo: agents of three tenants work against the sandbox, and the ledger is checked against the sandbox's logs."""

from __future__ import annotations

import json as jsonlib
import signal
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from types import FrameType


def run(*, json: bool = False, data_dir: Path | None = None, within: timedelta) -> int:
    """Tell the story once, within *within*. Return 0 only if the sandbox's logs agree with the ledger step by step.

    *json* prints one document instead of a live table. *data_dir* keeps the installation, which is otherwise deleted.
    Raise Misconfigured if the system cannot be started, or if it would touch another installation. Raise Unavailable,
    naming what was awaited, if the time runs out.
    """
    from deploy.demo.stage import Stage
    from deploy.demo.story import tell
    from deploy.demo.telling import Silent, Spoken
    from deploy.logs import configure
    from deploy.posix_signals import handling

    configure("demo", format="console", level="WARNING")  # to standard error, since the output is only the document
    with (
        handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), _leave),
        tempfile.TemporaryDirectory(prefix="aswhom-demo-") as temporary,
    ):
        directory = (data_dir or Path(temporary)).absolute()
        teller = Silent() if json else Spoken()
        with Stage(directory, say=teller.line, within=within) as stage:
            outcome = tell(stage, teller)
        if json:
            sys.stdout.write(jsonlib.dumps(outcome.document, indent=2) + "\n")
        teller.verdict(outcome.disagreements)
        return 1 if outcome.disagreements else 0


def _leave(number: int, _frame: FrameType | None) -> None:
    """Exit, so that everything is stopped and removed."""
    raise SystemExit(128 + number)
