"""A ledger's file on SQLite that is not what was written: it is noticed, said with what to do, and not copied."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from deploy.process import _awaited
from identity.errors import LedgerDamaged, Misconfigured, Unavailable
from identity.ids import Ids
from identity.keys.vault import Vault
from identity.sql.store import CommitUnknown
from pipeline.db.database import Database
from pipeline.db.sqlite_file import TookTooLong, copy_whole, faults
from pipeline.deliveries.intake import Intake
from pipeline.ledger.revision import revision_of
from pipeline.migrations import upgrade
from tests.ledgers import open_ledger

_PAGE = 4096


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger with many tenants, closed."""
    path = tmp_path / "ledger.db"
    with closing(open_ledger(f"sqlite:///{path}")) as database:
        upgrade(database)
        database.write(
            lambda c: c.execute(
                text("insert into tenants (id, name, created_at) values (:id, :name, 1)"),
                [{"id": f"t{number}", "name": "x" * 150} for number in range(2000)],
            )
        )
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    return path


def overwrite(path: Path) -> None:
    """The pages in which the tenants end."""
    with path.open("r+b") as opened:
        opened.seek(path.stat().st_size - 60 * _PAGE)
        opened.write(b"\xff" * (40 * _PAGE))


@pytest.fixture
def damaged(file: Path) -> Iterator[Database]:
    overwrite(file)
    with closing(open_ledger(f"sqlite:///{file}")) as database:
        yield database


def _web(database: Database) -> Intake:
    return Intake(database, Vault({1: bytes(32)}, secrets.token_bytes), Ids(), clock=lambda: datetime.now(UTC))


def _names(database: Database) -> None:
    database.read(lambda c: c.execute(text("select sum(length(name)) from tenants")).scalar())


def test_a_read_that_meets_damage_says_what_to_do_and_the_web_is_not_ready_from_then_on(
    damaged: Database, caplog: pytest.LogCaptureFixture
) -> None:
    web = _web(damaged)
    web.ready()
    with caplog.at_level(logging.CRITICAL):
        for _ in range(2):
            with pytest.raises(LedgerDamaged, match="stop every process, keep the file"):
                _names(damaged)
    assert [record.action for record in caplog.records] == ["ledger.damaged"]  # type: ignore[attr-defined]
    with pytest.raises(LedgerDamaged, match="restore a backup"):
        web.ready()


def test_a_write_that_meets_damage_says_so_too(damaged: Database) -> None:
    with pytest.raises(LedgerDamaged):
        damaged.write(lambda c: c.execute(text("update tenants set name = 'y'")))
    with pytest.raises(LedgerDamaged):
        _web(damaged).ready()


def test_a_file_that_is_no_database_is_damaged_and_is_not_waited_for(file: Path) -> None:
    file.write_bytes(b"not a database at all" * 1000)
    with closing(open_ledger(f"sqlite:///{file}")) as database:
        with pytest.raises(CommitUnknown):
            database.write(lambda c: c.execute(text("update tenants set name = 'y'")))
        with pytest.raises(LedgerDamaged):
            database.check_fit()
        with pytest.raises(Misconfigured, match="is damaged"):
            _awaited(lambda: revision_of(database))


def test_another_fault_of_a_statement_is_no_damage(file: Path) -> None:
    with closing(open_ledger(f"sqlite:///{file}")) as database:
        with pytest.raises(Exception, match="UNIQUE"):
            database.write(lambda c: c.execute(text("insert into tenants (id, name, created_at) values ('t1', '', 1)")))
        database.check_fit()


def test_what_is_whole_is_copied_while_others_write(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.touch()
    with closing(open_ledger(f"sqlite:///{file}")) as database:
        database.write(lambda c: c.execute(text("update tenants set name = 'new' where id = 't7'")))  # in the log alone
        copied = copy_whole(file, copy)
    assert (copied.size, copied.link) == (copy.stat().st_size, 0)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("select name from tenants where id = 't7'").fetchone() == ("new",)
    assert faults(file) == []


def test_a_ledger_that_nobody_has_open_is_looked_through_and_copied(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.touch()
    assert faults(file) == []
    copy_whole(file, copy)
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]


def test_what_pythons_own_module_cannot_read_is_said_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> list[str]:
        raise sqlite3.OperationalError("Could not decode to UTF-8 column")  # with no code of SQLite's

    monkeypatch.setattr("pipeline.db.sqlite_file._faults", cannot)
    with pytest.raises(Unavailable, match="Could not decode"):
        faults(file)


def test_what_is_damaged_is_not_copied(file: Path, tmp_path: Path) -> None:
    overwrite(file)
    copy = tmp_path / "copy.db"
    copy.touch()
    with pytest.raises(Misconfigured, match="No copy was kept"):
        copy_whole(file, copy)
    assert faults(file) != []


def test_an_index_that_lacks_a_row_is_found_by_the_full_look(file: Path) -> None:
    """By which a scope that was revoked would read as one that never was."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("insert into scopes (kind, key, revoked, stopped) values ('tenant', 'acme', 5, 0)")
        of_scopes = "select rootpage from sqlite_master where type = 'index' and tbl_name = 'scopes'"
        (root,) = connection.execute(of_scopes).fetchone()
        connection.execute("pragma wal_checkpoint(truncate)")
    with file.open("r+b") as opened:  # an empty leaf of an index: https://www.sqlite.org/fileformat2.html#b_tree_pages
        opened.seek((root - 1) * _PAGE)
        opened.write(b"\x0a\x00\x00\x00\x00\x10\x00\x00" + bytes(_PAGE - 8))
    assert faults(file, fully=False) == []
    assert any("index" in fault for fault in faults(file))


def test_a_look_that_takes_too_long_is_given_up(file: Path) -> None:
    with pytest.raises(TookTooLong):
        faults(file, within=timedelta(0))
