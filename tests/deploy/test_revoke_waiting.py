"""`revoke --wait`: whatever ends the wait, the revocation was declared and is named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from tests.deploy.conftest import Cli


def test_an_interrupted_wait_for_a_receipt_answers_with_the_revocation(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    words = ["revoke", "tenant", "acme", "--yes", "--wait", "--timeout", "600", "--json"]
    # A shell that runs the tests in the background has its children ignore SIGINT, which a person's shell does not.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from deploy.cli import main; main()"
    )
    command = [sys.executable, "-c", program, *words, "--data-dir", str(cli.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = next(line for line in process.stderr if "is revoked" in line)
        process.send_signal(signal.SIGINT)
        made = json.loads(process.stdout.read())["id"]
        assert told == f"tenant:acme is revoked: {made}. Waiting for the receipt.\n"
        assert process.wait() == 1
