"""`init`, `db upgrade` and `up` change no tables under what runs on them."""

from __future__ import annotations

import fcntl
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from deploy import supervisor
from deploy.settings import load
from deploy.up import Up
from identity.errors import Unavailable
from pipeline.database import open_database
from pipeline.ledger.clock import ledger_now
from pipeline.ledger.revision import newest, revision_of
from pipeline.migrations import upgrade
from tests.deploy.conftest import Cli
from tests.heartbeats import ticked
from tests.servers.process import free_port

OLD = "0040"


@pytest.fixture
def old(installed: Path, cli: Cli) -> Cli:
    """An installation of an earlier version, whose housekeeping ticks."""
    (cli.data_dir / "ledger.db").unlink()
    with closing(open_database(load(data_dir=cli.data_dir).database())) as ledger:
        upgrade(ledger, OLD)
        ticked(ledger, "dispatch", at=ledger.read(ledger_now), host="this")
    return cli


def _revision(cli: Cli) -> str | None:
    with closing(open_database(load(data_dir=cli.data_dir).database())) as ledger:
        return revision_of(ledger)


@pytest.mark.parametrize("words", [["db", "upgrade"], ["init"]])
def test_no_table_changes_while_an_up_runs_unless_that_is_asked_for(old: Cli, words: list[str]) -> None:
    (old.data_dir / supervisor.RUN).mkdir(exist_ok=True)
    with (old.data_dir / supervisor.LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = old.json(*words, code=1)
        assert (refused["error"], "`aswhom up` runs on" in refused["message"]) == ("Unavailable", True)
        assert _revision(old) == OLD
        old.json(*words, "--while-others-run")
        assert _revision(old) == newest()
        old.json(*words)  # nothing is due


def test_up_changes_no_table_while_a_process_of_the_list_ticks(old: Cli) -> None:
    settings = load(data_dir=old.data_dir, listen=f"127.0.0.1:{free_port()}")

    def tick(line: str) -> None:
        if "heartbeat" in line:
            with closing(open_database(settings.database())) as ledger:
                ticked(ledger, "dispatch", at=ledger.read(ledger_now) + timedelta(seconds=1), host="this")

    with pytest.raises(Unavailable, match="heartbeats come from this"):
        Up(settings, say=tick).start()
    assert _revision(old) == OLD
