"""Key files: made once, private, and refused where others could read them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from deploy.keys import KeyFiles
from identity.errors import Misconfigured
from identity.keys.vault import new_key_line, read_keys
from identity.secret import Secret


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    return KeyFiles(vault=tmp_path / "k/vault", signing=tmp_path / "k/signing")


def test_new_keys_are_private_and_never_overwritten(files: KeyFiles) -> None:
    assert len(files.create()) == 2
    first = files.read()
    assert files.create() == []
    assert files.read() == first
    for path in (files.vault, files.signing):
        assert path.stat().st_mode & 0o777 == 0o600
    assert files.vault.parent.stat().st_mode & 0o777 == 0o700
    assert first.vault[1] != first.signing


def test_a_disk_that_is_full_leaves_no_key_file_that_is_empty(files: KeyFiles) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            files.create()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(files.vault.parent.iterdir()) == []
    files.create()
    assert files.read().vault
    assert sorted(path.name for path in files.vault.parent.iterdir()) == ["signing", "vault"]


def test_every_missing_key_is_named_with_the_command_that_makes_it(files: KeyFiles) -> None:
    files.create()
    files.signing.unlink()
    with pytest.raises(Misconfigured) as caught:
        files.read()
    told = str(caught.value)
    assert str(files.signing) in told
    assert "aswhom init" in told
    assert str(files.vault) not in told
    files.vault.unlink()
    with pytest.raises(Misconfigured) as caught:
        files.read()
    assert {str(path) for path in (files.vault, files.signing)} <= set(str(caught.value).replace(":", " ").split())


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_key_that_everybody_can_read_is_refused(files: KeyFiles, mode: int) -> None:
    files.create()
    files.vault.chmod(mode)
    with pytest.raises(Misconfigured, match="chmod 600"):
        files.read()
    files.vault.chmod(0o640)  # how an orchestrator hands a secret to a group
    assert files.read().vault


@pytest.mark.parametrize("text", ["", "not base64!", "c2hvcnQ=", "é"])
def test_a_damaged_key_is_named_and_not_shown(files: KeyFiles, text: str) -> None:
    files.create()
    files.signing.write_text(text, encoding="utf-8")
    with pytest.raises(Misconfigured) as caught:
        files.read()
    assert str(files.signing) in str(caught.value)
    assert not text or text not in str(caught.value)


def test_a_new_vault_key_seals_and_the_old_one_still_opens(files: KeyFiles) -> None:
    files.create()
    before = files.read().vault
    assert files.add_vault_key() == 2
    after = files.read().vault
    assert after[1] == before[1]
    assert max(after) == 2
    assert files.vault.stat().st_mode & 0o777 == 0o600


def test_a_retired_key_leaves_the_ring_and_is_kept_beside_it(files: KeyFiles) -> None:
    files.create()
    files.add_vault_key()
    before = files.read().vault
    with pytest.raises(Misconfigured, match="is the newest"):
        files.retire_vault_key(2)
    with pytest.raises(Misconfigured, match="has no key 7: it has 1, 2"):
        files.retire_vault_key(7)
    beside = files.retire_vault_key(1)
    assert files.read().vault == {2: before[2]}
    assert read_keys(beside.read_text()) == {1: before[1]}
    assert beside.stat().st_mode & 0o777 == 0o600
    files.add_vault_key()
    for written in ("vault", "vault.retired"):
        (files.vault.parent / f"{written}.new").mkdir()  # so that not even root can write it
    for act in (files.add_vault_key, partial(files.retire_vault_key, 2)):
        with pytest.raises(Misconfigured, match=r"cannot be written: .*ASWHOM_VAULT_KEY_FILE"):
            act()
    assert sorted(files.read().vault) == [2, 3]


def test_a_changed_key_file_stays_whose_it_was_and_where_its_link_leads(files: KeyFiles, tmp_path: Path) -> None:
    files.create()
    kept = {}
    for path in (files.vault, files.signing):
        real = tmp_path / "elsewhere" / path.name
        real.parent.mkdir(exist_ok=True)
        path.rename(real)
        path.symlink_to(real)
        real.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(real, 4711, 4712)
        kept[real] = real.stat()
    files.add_vault_key()
    retired = files.retire_vault_key(1)
    seed = files.next_signing_key()
    files.adopt_signing_key()
    assert files.read().signing == seed
    assert files.vault.is_symlink()
    assert files.signing.is_symlink()
    for path in (*kept, retired):
        was, now = kept.get(path, kept[files.vault.resolve()]), path.stat()
        assert (now.st_uid, now.st_gid, now.st_mode) == (was.st_uid, was.st_gid, was.st_mode)


def test_the_ring_may_come_from_the_environment_and_no_command_writes_it(files: KeyFiles) -> None:
    files.create()
    text = files.vault.read_text() + new_key_line(2, os.urandom)
    files.vault.unlink()
    there = replace(files, ring=Secret(text.strip().replace("\n", ",")))
    assert sorted(there.read().vault) == [1, 2]
    assert there.missing() == []
    assert text[2:20] not in repr(there)
    with pytest.raises(Misconfigured, match="ASWHOM_VAULT_KEYS"):
        there.add_vault_key()
    with pytest.raises(Misconfigured, match="ASWHOM_VAULT_KEYS: line 1"):
        replace(files, ring=Secret("nonsense")).read()


@pytest.mark.parametrize("mode", [0o660, 0o620])
def test_a_key_that_its_group_can_write_is_refused(files: KeyFiles, mode: int) -> None:
    """Who can write there swaps the seed that signs."""
    files.create()
    files.signing.chmod(mode)
    with pytest.raises(Misconfigured, match="chmod g-w"):
        files.read()


def test_a_process_that_reads_keys_leaves_no_core_file_and_no_debugger_looks_into_it(files: KeyFiles) -> None:
    files.create()
    get_dumpable = 3  # prctl(2)
    script = (
        "import ctypes, resource, sys\n"
        "from pathlib import Path\n"
        "from deploy.keys import KeyFiles\n"
        "state = lambda: (resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(%d, 0, 0, 0, 0))\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n"
        "before = state()[1]\n"
        "KeyFiles(vault=Path(sys.argv[1]), signing=Path(sys.argv[2])).read()\n"
        "print(before, state())\n"
    )
    command = [sys.executable, "-c", script % get_dumpable, str(files.vault), str(files.signing)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stdout == "1 ((0, 0), 0)\n"


@pytest.mark.parametrize(
    ("mode", "writable"), [(0o701, False), (0o755, False), (0o777, True), (0o770, True), (0o750, None)]
)
def test_a_folder_of_keys_that_is_open_to_others_is_named(files: KeyFiles, mode: int, writable: bool | None) -> None:
    files.create()
    assert files.exposed() == []
    files.vault.parent.chmod(mode)
    assert files.exposed() == ([] if writable is None else [(files.vault.parent, writable)])
    assert files.exposed(flags=lambda folder: os.ST_RDONLY) == []  # as Kubernetes mounts a secret
