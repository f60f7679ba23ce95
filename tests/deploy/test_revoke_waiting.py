"""`revoke`: whatever ends the wait for its receipt or for the broker, the revocation was declared and is named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from deploy.cli.output import Output
from deploy.cli.revoke import revoke
from deploy.installation import Installation
from deploy.settings import load
from identity.errors import Unavailable
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


def test_where_the_broker_is_away_too_the_operator_reads_a_sentence_and_no_log(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    first, note = cli("revoke", "tenant", "acme", "--yes").output.splitlines()
    assert first.startswith("tenant:acme is revoked")
    assert note.startswith("no worker was told, since the broker does not answer (")


def test_a_revocation_waits_for_no_look_at_what_it_stops(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.json("tenants", "add", "acme")
    cli.json("tenants", "add", "globex")

    def too_slow(*_: object, **__: object) -> None:
        raise Unavailable("a statement took too long, and the ledger's server ended it")

    monkeypatch.setattr("pipeline.revoker.preview.steps_to_undo", too_slow)
    asked = cli("revoke", "tenant", "acme").output
    assert "What depends on it could not be read: a statement took too long" in asked
    assert cli.json("revoke", "tenant", "acme", "--yes")["scope"]["key"] == "acme"
    assert cli.json("tenants", "delete", "globex", "--yes", "--timeout", "0", code=1)["revocation"]


def test_a_revocation_is_named_before_workers_are_told_of_it(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    cli.json("tenants", "add", "acme")

    class Hanging(Installation):
        """Its broker hangs, until the operator has seen enough."""

        def ring_revocations(self, ids: Sequence[str]) -> None:
            raise KeyboardInterrupt

    how = {"kind": "tenant", "key": "acme", "tenant": None, "reason": "no", "dry_run": False, "wait": False}
    how |= {"file": None, "after": None}
    with Hanging(load(data_dir=cli.data_dir)) as at:
        code = vars(revoke.callback)["__wrapped__"](at, Output(as_json=True), **how, timeout=30.0, yes=True)
    told = capsys.readouterr()
    assert code is None
    assert cli.json("revocations", "show", json.loads(told.out)["id"])["state"] == "effective"
    assert "find out by themselves" in told.err
