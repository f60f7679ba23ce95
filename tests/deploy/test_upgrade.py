"""`init`, `db upgrade` and `up` change no tables under what runs on them."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from deploy import supervisor
from deploy.running_check import refuse_beside_others
from deploy.settings import load
from deploy.up import Up
from identity.errors import Unavailable
from identity.keys.vault import Binding, Vault
from identity.secret import Secret
from pipeline.db.database import open_database
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


@pytest.mark.parametrize("words", [["db", "upgrade"], ["init"]])
def test_no_table_changes_where_no_process_would_start_afterwards(
    old: Cli, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no way back from the new ones but the backup."""
    (old.data_dir / "keys/vault").chmod(0o660)
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "no_such_package")
    said = old.json(*words, "--while-others-run", code=1)["message"]
    assert ("chmod g-w" in said, "no_such_package" in said, "nothing was changed" in said) == (True, True, True)
    assert _revision(old) == OLD
    (old.data_dir / "keys/vault").chmod(0o600)
    monkeypatch.delenv("ASWHOM_WORKFLOWS")
    old.json(*words, "--while-others-run")
    assert _revision(old) == newest()


def test_a_check_tells_every_fault_beside_what_runs_and_changes_nothing(
    old: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_database(load(data_dir=old.data_dir).database())) as ledger:
        ledger.write(lambda c: _old_connection(c, api_url="http://git.internal:53371/graphql"))
    monkeypatch.setenv("ASWHOM_ALLOW_HOSTS", "git.internal")
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "no_such_package")
    (old.data_dir / "keys/vault").chmod(0o660)
    (old.data_dir / supervisor.RUN).mkdir(exist_ok=True)
    with (old.data_dir / supervisor.LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = old.json("db", "upgrade", "--check", code=1)
        assert (found["before"], found["after"], _revision(old)) == (OLD, newest(), OLD)
        for says in ("chmod g-w", "no_such_package", "add http://git.internal:53371 to ASWHOM_ALLOW_HOSTS"):
            assert sum(says in fault for fault in found["faults"]) == 1, says
        monkeypatch.setenv("ASWHOM_ALLOW_HOSTS", "http://git.internal:53371")
        monkeypatch.delenv("ASWHOM_WORKFLOWS")
        (old.data_dir / "keys/vault").chmod(0o600)
        monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")  # which `aswhom up` hands on to nobody
        said = old("db", "upgrade", "--check")
        assert "tables: change" in said.output
        assert old.json("db", "upgrade", "--check")["revisions"].keys() >= {"0068", "0074"}
    assert (said.exit_code, "nothing is in the way" in said.output, _revision(old)) == (0, True, OLD)


def test_what_reaches_less_by_hosts_alone_or_starts_no_worker_is_found_before_too(
    old: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_database(load(data_dir=old.data_dir).database())) as ledger:
        ledger.write(lambda c: _old_connection(c, api_url="https://git.example/graphql"))
    monkeypatch.setenv("ASWHOM_EGRESS_HOSTS", "slack.com")
    monkeypatch.setenv("CELERY_WORKDIR", "/srv")
    found = old.json("db", "upgrade", "--check", code=1)["faults"]
    alone = "that is not started by `aswhom up` does not start where this is set: "
    for says in ("leads to git.example, which ASWHOM_EGRESS_HOSTS leaves out", alone, "CELERY_WORKDIR is Celery's"):
        assert sum(says in fault for fault in found) == 1, says


@pytest.mark.parametrize("words", [["db", "upgrade", "--check"], ["db", "upgrade"]])
def test_rows_that_the_tables_of_this_version_do_not_take_are_found_before_they_change(
    installed: Path, cli: Cli, words: list[str]
) -> None:
    (cli.data_dir / "ledger.db").unlink()
    audience = (
        "insert into capability_audiences (id, uri, algorithm, passes_to, secret_sha256, created_at) "
        "values (:id, 'https://hr.example', 'ES256', '[]', '', 0)"
    )
    with closing(open_database(load(data_dir=cli.data_dir).database())) as ledger:
        upgrade(ledger, "0027")
        ledger.write(lambda c: c.execute(text(audience), [{"id": "hr"}, {"id": "hr-2"}]).rowcount)
    said = cli.json(*words, code=1)
    told = " ".join(said["faults"]) if "faults" in said else said["message"]
    assert "the audiences hr, hr-2 have one address, https://hr.example: `aswhom capability audiences remove`" in told
    assert _revision(cli) == "0027"


def test_an_empty_ledger_under_old_keys_is_told_of_before_it_is_filled(old: Cli) -> None:
    """As of a database that was restored under another name than the settings have."""
    (old.data_dir / "ledger.db").unlink()
    (old.data_dir / "ledger.db").touch()
    found = old.json("db", "upgrade", "--check", code=1)["faults"]
    assert sum("there are keys, but no tables of a ledger at" in fault for fault in found) == 1
    note, *_ = old("db", "upgrade").output.splitlines()
    assert note.startswith("there are keys but no ledger")
    assert "but no ledger" not in old("db", "upgrade").output


def test_what_is_refused_leaves_no_empty_ledger_behind(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (cli.data_dir / "ledger.db").unlink()
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "no_such_package")
    assert "no_such_package" in cli.json("init", code=1)["message"]
    assert not (cli.data_dir / "ledger.db").exists()


def test_a_check_makes_no_ledger(old: Cli) -> None:
    (old.data_dir / "ledger.db").unlink()
    assert "there is no ledger at" in old.json("db", "upgrade", "--check", code=1)["message"]
    assert not (old.data_dir / "ledger.db").exists()


def test_who_has_upgraded_is_told_what_comes_next(old: Cli) -> None:
    said = old("db", "upgrade", "--while-others-run").output
    assert (f"upgraded from {OLD} to {newest()}" in said, "`aswhom doctor`" in said) == (True, True)
    assert "`aswhom doctor`" not in old("db", "upgrade").output


def test_no_table_changes_under_keys_that_are_another_ledgers(old: Cli, tmp_path: Path) -> None:
    _sealed_in_an_old_ledger(old)
    Cli(tmp_path / "other").json("init")
    shutil.copytree(tmp_path / "other/keys", old.data_dir / "keys", dirs_exist_ok=True)
    said = old.json("db", "upgrade", "--while-others-run", code=1)["message"]
    assert "vault key 1 is not the ledger's" in said
    assert _revision(old) == OLD


def _sealed_in_an_old_ledger(cli: Cli) -> None:
    settings = load(data_dir=cli.data_dir)
    vault = Vault(settings.key_files().read().vault, os.urandom)
    binding = Binding(tenant="", record="sec_1", field="sealed", provider="linear")
    sealed = vault.seal(Secret("hunter2"), binding)

    def add(c: Connection) -> None:
        _old_connection(c, api_url="https://api.linear.app")
        row = "insert into connection_secrets (id, connection_id, name, sealed, created_at) "
        c.execute(text(row + "values ('sec_1', 'linear', 'client_secret', :sealed, 1)"), {"sealed": sealed})

    with closing(open_database(settings.database())) as ledger:
        ledger.write(add)


def _old_connection(c: Connection, *, api_url: str) -> None:
    c.execute(
        text(
            "insert into provider_connections (id, provider, client_id, scopes, api_url, authorize_url, token_url, "
            "config, created_at) values ('linear', 'linear', 'x', '[]', :api_url, '', '', '{}', 1)"
        ),
        {"api_url": api_url},
    )


def test_an_up_on_the_data_directory_is_seen_wherever_its_ledger_is(cli: Cli) -> None:
    """Where another installation lives in the same database, sessions say nothing of it."""
    settings = load(data_dir=cli.data_dir, database_url="postgresql://127.0.0.1/aswhom")
    (cli.data_dir / supervisor.RUN).mkdir(exist_ok=True)
    with (cli.data_dir / supervisor.LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="`aswhom up` runs on"):
            refuse_beside_others(settings, pytest.fail, because="it is to change", tell=pytest.fail)


def test_up_changes_no_table_while_a_process_of_the_list_ticks(old: Cli) -> None:
    settings = load(data_dir=old.data_dir, listen=f"127.0.0.1:{free_port()}")

    def tick(line: str) -> None:
        if "heartbeat" in line:
            with closing(open_database(settings.database())) as ledger:
                ticked(ledger, "dispatch", at=ledger.read(ledger_now) + timedelta(seconds=1), host="this")

    with pytest.raises(Unavailable, match="heartbeats come from this"):
        Up(settings, say=tick).start()
    assert _revision(old) == OLD
