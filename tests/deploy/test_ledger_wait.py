"""`db wait`: 0 once the ledger is there, 1 if it does not come, 78 where waiting is no use; and it hears SIGTERM."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.deploy.conftest import Cli
from tests.deploy.running import ASWHOM
from tests.servers.process import end, free_port, start, wait_until
from tests.waiting import PATIENCE


def _at_revision(cli: Cli, revision: str) -> None:
    with closing(sqlite3.connect(cli.data_dir / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("update alembic_version set version_num = ?", (revision,))


def test_a_ledger_at_this_versions_tables_is_not_waited_for(cli: Cli) -> None:
    assert cli.json("db", "wait") == {"there": True}


def test_tables_of_an_older_version_are_waited_for_and_not_for_ever(cli: Cli) -> None:
    _at_revision(cli, "0001")
    waited = cli("db", "wait", "--within", "0")
    assert (waited.exit_code, "run `aswhom db upgrade`" in waited.stderr) == (1, True)


def test_tables_of_a_newer_version_are_not_waited_for(cli: Cli) -> None:
    _at_revision(cli, "9999")
    waited = cli("db", "wait")
    assert (waited.exit_code, "of a newer Aswhom" in waited.stderr) == (78, True)


def test_a_sequence_that_was_not_put_back_is_not_waited_for(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    with closing(sqlite3.connect(cli.data_dir / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("update ledger_numbers set value = 0")
    waited = cli("db", "wait")
    assert (waited.exit_code, "the ledger's numbers are at 0" in waited.stderr) == (78, True)


def test_a_wrong_setting_is_not_waited_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASWHOM_LISTNE", "0.0.0.0:8080")
    waited = cli("db", "wait")
    assert (waited.exit_code, "ASWHOM_LISTNE" in waited.stderr) == (78, True)
    assert cli("tenants", "list").exit_code == 1  # as every other command: 78 is for what a supervisor starts


def test_whoever_waits_for_the_ledgers_server_hears_that_it_is_to_stop(cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {
        "PATH": os.environ["PATH"],
        "ASWHOM_DATA_DIR": str(cli.data_dir),
        "ASWHOM_DATABASE_URL": f"postgresql://aswhom@127.0.0.1:{free_port()}/aswhom",
    }
    started = start([ASWHOM, "db", "wait"], log=log, environment=environment)
    try:
        wait_until(lambda: "aswhom: waiting: " in log.read_text(), process=started, log=log)
        started.send_signal(signal.SIGTERM)
        assert started.wait(PATIENCE) == 1, log.read_text()
    finally:
        end(started, signal.SIGKILL)
