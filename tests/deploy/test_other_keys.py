"""Keys that are not the ones of the ledger: none are made over it, nothing is sealed by them, and doctor finds them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.settings import load
from deploy.up import Up
from identity.errors import Misconfigured
from tests.deploy.conftest import Cli, told

pytestmark = pytest.mark.usefixtures("shared_ledger")


@pytest.fixture
def shared_ledger(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASWHOM_DATABASE_URL", database_url)


@pytest.fixture
def first(tmp_path: Path) -> Cli:
    """The host whose keys the ledger knows, by a secret and by a chain."""
    cli = Cli(tmp_path / "first")
    cli.json("init")
    cli.json("tenants", "add", "acme")
    arguments = ("--id", "forge", "--client-id", "x", "--client-secret-file", "-")
    cli.json("connections", "add", "github", *arguments, input="hunter2-hunter2")
    cli.json("audit", "checkpoint")
    return cli


@pytest.fixture
def other(first: Cli, installed: Path, tmp_path: Path) -> Cli:
    """A host with keys of its own, of the same ids."""
    shutil.copytree(installed / "keys", tmp_path / "other/keys")
    return Cli(tmp_path / "other")


def test_no_keys_are_made_over_a_ledger_that_others_sealed_and_signed(first: Cli) -> None:
    for gone in (["vault", "signing"], ["vault"], ["signing"]):
        kept = {name: (first.data_dir / "keys" / name).read_bytes() for name in gone}
        for name in gone:
            (first.data_dir / "keys" / name).unlink()
        said = first.json("init", code=1)["message"]
        with pytest.raises(Misconfigured) as caught:
            Up(load(data_dir=first.data_dir)).start()
        assert str(caught.value) == said
        for name in gone:
            assert str(first.data_dir / "keys" / name) in said
        assert ("1 secret" in said, "chain" in said) == ("vault" in gone, "signing" in gone)
        assert "restore" in said
        for name, content in kept.items():
            assert not (first.data_dir / "keys" / name).exists()
            (first.data_dir / "keys" / name).write_bytes(content)
            (first.data_dir / "keys" / name).chmod(0o600)
    assert first.json("init")["made"] == []


def test_another_key_of_the_same_id_seals_nothing(first: Cli, other: Cli) -> None:
    rotate = ("connections", "rotate-secret", "forge", "--name", "client_secret", "--file", "-")
    for command in (("init",), ("keys", "rewrap"), rotate):
        said = other.json(*command, input="an0ther-secret", code=1)["message"]
        assert "vault key 1 is not the ledger's" in said, command
        assert "copy" in said
    with pytest.raises(Misconfigured, match="vault key 1 is not the ledger's"):
        Up(load(data_dir=other.data_dir)).start()
    assert first.json(*rotate, input="an0ther-secret")["connection"] == "forge"


def test_a_ledger_from_before_its_key_was_retired_is_refused_until_that_keys_line_is_put_back(first: Cli) -> None:
    first.json("keys", "add")
    files = load(data_dir=first.data_dir).key_files()
    retired = files.retire_vault_key(1)  # which the command refuses: so it stands once a backup was restored
    with pytest.raises(Misconfigured, match="vault key 1 sealed the ledger's secrets, and here is only 2") as refused:
        Up(load(data_dir=first.data_dir)).start()
    assert "keys/vault.retired" in str(refused.value)
    assert "keys/vault.retired" in told(first, "sealed")[0][1]
    files.vault.write_text(files.vault.read_text() + retired.read_text(), encoding="ascii")
    assert first.json("keys", "rewrap")["left"] == 0
    assert told(first, "sealed")[0][0] == "ok"


def test_doctor_tries_the_keys_on_what_they_are_for(first: Cli, other: Cli) -> None:
    assert [state for state, _ in told(first, "sealed") + told(first, "signing key")] == ["ok", "ok"]
    (sealed,), (signing,) = told(other, "sealed"), told(other, "signing key")
    assert (sealed[0], signing[0]) == ("wrong", "wrong")
    assert "sec_" in sealed[1]
    assert "keys/signing" in signing[1]


def test_keys_that_cannot_be_read_are_told_of_once(first: Cli) -> None:
    (first.data_dir / "keys/vault").unlink()
    assert told(first, "sealed") + told(first, "signing key") == []
    assert len(told(first, "keys")) == 1


def test_a_secret_whose_key_is_missing_is_named(first: Cli) -> None:
    vault = first.data_dir / "keys/vault"
    vault.write_text(vault.read_text().replace("1:", "7:"), encoding="ascii")
    assert [(state, "needs vault key 1" in says) for state, says in told(first, "sealed")] == [("wrong", True)]
