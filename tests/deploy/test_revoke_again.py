"""`revoke --from`: what a restored ledger has forgotten of its revocations is withdrawn again, and nothing else."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.deploy.conftest import Cli

#: What came after the backup and was revoked before the disk died, and all that was revoked since the backup.
GONE = [
    ("tenant", "late"),
    ("user", "acme.mallory"),
    ("agent", "robot"),
    ("connection", "acme-github"),
    ("account", "acme/acme-github/acme.mallory"),
]
LOST = ["tenant:acme", *(f"{kind}:{key}" for kind, key in GONE)]


@pytest.fixture
def restored(cli: Cli, tmp_path: Path) -> tuple[Cli, Path]:
    """A ledger that was put back, and the list of revocations that was kept: globex's is older than the backup."""
    for tenant in ("acme", "globex", "initech"):
        cli.json("tenants", "add", tenant)
    cli.json("revoke", "tenant", "globex", "--yes")
    backup, kept = tmp_path / "backup.db", tmp_path / "revocations.json"
    cli.json("db", "backup", str(backup))
    cli.json("revoke", "tenant", "acme", "--yes", "--reason", "left")
    cli.json("revoke", "tenant", "acme", "--yes", "--reason", "left for good")
    cli.json("tenants", "add", "late")
    cli.json("revoke", "tenant", "late", "--yes")
    cli.json("revocations", "list", "--output", str(kept))
    late, *rest = json.loads(kept.read_text())
    gone = [late | {"number": late["number"] + more, "kind": kind, "key": key} for more, (kind, key) in enumerate(GONE)]
    kept.write_text(json.dumps([*reversed(gone), *rest]))
    (cli.data_dir / "ledger.db").write_bytes(backup.read_bytes())
    for beside in cli.data_dir.glob("ledger.db-*"):
        beside.unlink()
    return cli, kept


def _revoked(cli: Cli) -> list[str]:
    return [f"{row['kind']}:{row['key']} {row['reason']}" for row in reversed(cli.json("revocations", "list"))]


def test_what_is_newer_than_the_backup_is_revoked_once_also_what_this_ledger_never_heard_of(
    restored: tuple[Cli, Path],
) -> None:
    cli, kept = restored
    again = ("revoke", "--from", str(kept), "--yes")
    assert "never marked" in cli.json(*again, code=1)["message"]
    cli.json("db", "restored", "--why", "the disk died", "--yes")
    before = _revoked(cli)
    dry = cli.json("revoke", "--from", str(kept), "--dry-run")
    assert (dry["due"], dry["unknown"]) == ([*LOST], LOST[1:])
    asked = cli("revoke", "--from", str(kept)).output
    assert "its ledger at" in asked
    assert f"Revoke 6 of them again ({', '.join(LOST[:5])} …)?" in asked
    assert "tenant:late is not in this ledger, and is revoked in case it appears there later" in asked
    assert _revoked(cli) == before
    done = cli.json(*again)
    assert (done["due"], len(done["revoked"])) == ([*LOST], len(LOST))
    made, *others = _revoked(cli)[len(before) :]
    assert made.startswith("tenant:acme left for good (again, since a restore had forgotten rev_")
    assert [one.split(" ")[0] for one in others] == LOST[1:]
    assert (cli.json(*again)["revoked"], cli.json(*again)["done_before"]) == ([], LOST)
    assert cli.json(*again, "--after", "0")["due"] == [], "a restore's own number is not the only one that counts"


def test_a_narrowing_that_was_forgotten_is_named_with_the_command_that_makes_it_again(cli: Cli, tmp_path: Path) -> None:
    service = ("accounts", "add-static", "--tenant", "acme", "--connection", "github", "--token-file", "-")
    cli.json("tenants", "add", "acme")
    cli.json("connections", "add", "github", "--client-id", "x", "--client-secret-file", "-", input="secret")
    cli.json(*service, "--scopes", "issues:read,issues:write,contents:read", input="t0ken")
    narrow = ("accounts", "narrow", "acme/github/acme.service", "--yes", "--scopes")
    cli.json(*narrow, "contents:read,issues:read")
    backup, kept = tmp_path / "backup.db", tmp_path / "revocations.json"
    cli.json("db", "backup", str(backup))
    cli.json(*narrow, "issues:read")
    cli.json("revocations", "list", "--output", str(kept))
    (cli.data_dir / "ledger.db").write_bytes(backup.read_bytes())
    for beside in cli.data_dir.glob("ledger.db-*"):
        beside.unlink()
    cli.json("db", "restored", "--why", "the disk died", "--yes")
    again = ("revoke", "--from", str(kept), "--yes")
    (command,) = re.findall(r"`aswhom (accounts narrow [^`]*)`", cli(*again).output)
    told = cli.json(*again)
    assert (told["to_narrow"], told["due"]) == ([f"run `aswhom {command}`"], [])
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps([row | {"signal_id": "sig"} for row in json.loads(kept.read_text())]))
    (look,) = cli.json("revoke", "--from", str(theirs), "--yes")["to_narrow"]
    assert look.startswith("the provider left acme/github/acme.service issues:read: compare it")
    assert _revoked(cli) == ["narrowing:acme/github/acme.service an operator's decision"], "nothing was revoked"
    assert cli.json(*shlex.split(command), "--yes")["keeps"] == ["issues:read"]
    assert "accounts narrow" not in cli(*again).output


def test_a_sequence_that_is_ahead_of_the_rows_hides_nothing(restored: tuple[Cli, Path]) -> None:
    """As in a dump during which revocations were made, and in a standby."""
    cli, kept = restored
    with closing(sqlite3.connect(cli.data_dir / "ledger.db")) as ledger, ledger:
        ledger.execute("update ledger_numbers set value = value + 32")
    cli.json("db", "restored", "--why", "a failover", "--yes")
    assert cli.json("revoke", "--from", str(kept), "--dry-run")["due"] == LOST


def test_a_ledger_that_is_marked_twice_forgets_no_more_and_does_nothing_twice(restored: tuple[Cli, Path]) -> None:
    cli, kept = restored
    again = ("revoke", "--from", str(kept), "--yes")
    for _ in range(2):
        cli.json("db", "restored", "--why", "the disk died", "--yes")
    assert cli.json(*again)["due"] == LOST
    cli.json("db", "restored", "--why", "with the checkpoint", "--yes")
    after = cli.json(*again)
    assert (after["due"], after["done_before"]) == ([], LOST)


def test_a_list_in_which_nothing_is_newer_is_no_success(restored: tuple[Cli, Path], tmp_path: Path) -> None:
    """The wrong one of those that are kept, likely: one from before the backup."""
    cli, kept = restored
    cli.json("db", "restored", "--why", "the disk died", "--yes")
    old = tmp_path / "old.json"
    old.write_text(json.dumps([row for row in json.loads(kept.read_text()) if row["key"] == "globex"]))
    for more in ((), ("--dry-run",), ("--after", "1000")):
        told = cli("revoke", "--from", str(old), "--yes", *more)
        assert told.exit_code == 1, told.output
        assert "Is it the newest list" in told.output


@pytest.mark.parametrize(
    ("told", "barred"),
    [
        ({"requested_by": "cli:eve", "barred": ["cli:eve"]}, {"cli:eve"}),
        ({"requested_by": "api:acme.bot:key_1", "barred": ["acme.grace"]}, {"acme.grace"}),
        ({"requested_by": "console:00u1 (Grace)"}, {"console:00u1 (Grace)", "console:00u1", "Grace"}),
        ({"requested_by": "console:00u1 (Grace (Ops))"}, {"console:00u1", "Grace (Ops)"}),
        ({"requested_by": "console:CN=Grace (Ops) (Grace)"}, {"console:CN=Grace (Ops)", "Grace"}),
        ({"requested_by": "console:CN=G (Ops) (Grace (Ops))"}, {"console:CN=G (Ops)", "Grace (Ops)"}),
    ],
    ids=["a person", "a key", "an older version", "brackets in the name", "brackets in the subject", "in both"],
)
def test_whoever_had_revoked_approves_no_compensation_of_what_is_revoked_again(
    restored: tuple[Cli, Path], told: dict[str, object], barred: set[str]
) -> None:
    cli, kept = restored
    cli.json("db", "restored", "--why", "the disk died", "--yes")
    newest, *_ = json.loads(kept.read_text())
    del newest["barred"]
    kept.write_text(json.dumps([newest | told]))
    (made,) = cli.json("revoke", "--from", str(kept), "--yes")["revoked"]
    (row,) = (one for one in cli.json("revocations", "list") if one["id"] == made)
    assert barred <= {*row["barred"]}


def test_what_is_no_list_and_what_does_not_belong_beside_one_is_refused(
    restored: tuple[Cli, Path], tmp_path: Path
) -> None:
    cli, kept = restored
    other = tmp_path / "other.json"
    row = json.loads(kept.read_text())[0]
    no_account = row | {"key": "acme.mallory"}
    for text in ("{}x", json.dumps([{"id": "rev_1"}]), json.dumps({"a": 1}), json.dumps([no_account])):
        other.write_text(text)
        said = cli.json("revoke", "--from", str(other), "--after", "0", "--yes", code=1)["message"]
        assert "is not what `aswhom revocations list --output` writes" in said
    assert cli("revoke", "tenant", "acme", "--from", str(kept)).exit_code == 2
    assert cli("revoke", "--from", str(kept), "--reason", "they left", "--yes").exit_code == 2, "each keeps its own"
    assert "give KIND and KEY" in cli("revoke").output
