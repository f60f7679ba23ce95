"""`db backup` and `db check`: a copy is whole and the owner's alone, or there is none; a damaged ledger is told of."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.deploy.conftest import Cli, told


def _spoil(cli: Cli) -> None:
    """Pages in the middle of the ledger, which nobody has open."""
    path = cli.data_dir / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    with path.open("r+b") as opened:
        opened.seek(path.stat().st_size - 30 * 4096)
        opened.write(b"\xff" * (20 * 4096))


def test_a_backup_is_a_ledger_of_its_owner_alone(cli: Cli, tmp_path: Path) -> None:
    cli("tenants", "add", "acme")
    copy = tmp_path / "copy.db"
    said = cli.json("db", "backup", str(copy))
    assert (said["file"], said["bytes"]) == (str(copy), copy.stat().st_size)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert list(tmp_path.glob("*copy.db*")) == [copy]
    (cli.data_dir / "ledger.db").unlink()
    for beside in cli.data_dir.glob("ledger.db-*"):
        beside.unlink()
    copy.rename(cli.data_dir / "ledger.db")
    assert [tenant["id"] for tenant in cli.json("tenants", "list")] == ["acme"]


def test_a_backup_takes_the_place_of_none(cli: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    cli.json("db", "backup", str(copy))
    good = copy.read_bytes()
    assert "exists: name a new file" in cli.json("db", "backup", str(copy), code=1)["message"]
    _spoil(cli)
    late = tmp_path / "late.db"
    assert "is damaged" in cli.json("db", "backup", str(late), code=1)["message"]
    assert [path.name for path in tmp_path.glob("*.db*")] == ["copy.db"]
    assert copy.read_bytes() == good


def test_damage_is_found_by_a_check_and_by_the_doctor(cli: Cli) -> None:
    assert cli.json("db", "check") == {"whole": True, "faults": [], "wal_bytes": 0}
    _spoil(cli)
    found = cli.json("db", "check", code=1)
    assert (found["whole"], bool(found["faults"])) == (False, True)
    assert "restore a backup" in cli("db", "check").output
    assert any("restore a backup" in says for _, says in told(cli, "durability") + told(cli, "ledger"))


def test_where_there_is_no_ledger_none_is_made(cli: Cli, tmp_path: Path) -> None:
    (cli.data_dir / "ledger.db").unlink()
    for command in (("db", "check"), ("db", "backup", str(tmp_path / "copy.db"))):
        assert "there is no ledger at" in cli.json(*command, code=1)["message"]
    assert not (cli.data_dir / "ledger.db").exists()


@pytest.mark.parametrize("command", [("db", "check"), ("db", "backup", "copy.db")])
def test_on_postgresql_its_own_tools_are_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ASWHOM_DATABASE_URL", "postgresql+psycopg://nobody@/nowhere")
    assert "on PostgreSQL" in cli.json(*command, code=1)["message"]
