"""The vault: what is sealed for one row opens for no other, and every key in the file still reads."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from identity.errors import Misconfigured
from identity.keys.vault import Binding, Vault, new_key_line, read_keys
from identity.secret import Secret

OLD, NEW = b"o" * 32, b"n" * 32
BINDING = Binding(tenant="acme", record="account-1", provider="github", field="access_token", generation=3)


@pytest.fixture
def vault() -> Vault:
    return Vault({1: OLD}, os.urandom)


def test_a_secret_comes_back(vault: Vault) -> None:
    assert vault.open(vault.seal(Secret("canary"), BINDING), BINDING) == Secret("canary")


def test_the_same_secret_never_seals_alike(vault: Vault) -> None:
    assert vault.seal(Secret("canary"), BINDING) != vault.seal(Secret("canary"), BINDING)


def test_the_overhead_is_93_bytes(vault: Vault) -> None:
    assert len(vault.seal(Secret("x" * 500), BINDING)) == 593


@pytest.mark.parametrize(
    "other",
    [
        replace(BINDING, tenant="evil"),
        replace(BINDING, record="account-2"),
        replace(BINDING, provider="slack"),
        replace(BINDING, field="refresh_token"),
        replace(BINDING, generation=4),
        replace(BINDING, tenant="acm", record="eaccount-1"),  # the same letters, cut elsewhere
    ],
    ids=repr,
)
def test_a_row_moved_elsewhere_does_not_open(vault: Vault, other: Binding) -> None:
    sealed = vault.seal(Secret("canary"), BINDING)
    with pytest.raises(Misconfigured, match="belongs to another row") as error:
        vault.open(sealed, other)
    assert other.record in str(error.value)
    assert "canary" not in str(error.value)


def test_every_altered_byte_is_noticed(vault: Vault) -> None:
    sealed = vault.seal(Secret("canary"), BINDING)
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(Misconfigured):
            vault.open(bytes(altered), BINDING)


@pytest.mark.parametrize("length", [0, 1, 50, 92])
def test_a_value_cut_short_is_not_in_the_format(vault: Vault, length: int) -> None:
    with pytest.raises(Misconfigured, match="format"):
        vault.open(vault.seal(Secret("canary"), BINDING)[:length], BINDING)


def test_the_newest_key_writes_and_the_old_one_reads(vault: Vault) -> None:
    both = Vault({1: OLD, 2: NEW}, os.urandom)
    sealed = vault.seal(Secret("canary"), BINDING)
    assert both.open(sealed, BINDING) == Secret("canary")
    assert not sealed.startswith(both.head)
    assert Vault({2: NEW}, os.urandom).open(both.seal(Secret("canary"), BINDING), BINDING) == Secret("canary")


def test_rewrapping_needs_the_old_key_no_more_and_leaves_the_ciphertext(vault: Vault) -> None:
    sealed = vault.seal(Secret("canary"), BINDING)
    rewrapped = Vault({1: OLD, 2: NEW}, os.urandom).rewrap(sealed)
    only_new = Vault({2: NEW}, os.urandom)
    assert rewrapped.startswith(only_new.head)
    assert rewrapped[65:] == sealed[65:]
    assert only_new.open(rewrapped, BINDING) == Secret("canary")
    with pytest.raises(Misconfigured):
        only_new.open(rewrapped, replace(BINDING, tenant="evil"))


def test_a_key_removed_too_early_is_named(vault: Vault) -> None:
    sealed = vault.seal(Secret("canary"), BINDING)
    with pytest.raises(Misconfigured, match=r"account-1 needs vault key 1, and the key file has only: 2"):
        Vault({2: NEW}, os.urandom).open(sealed, BINDING)


def test_another_key_under_the_same_id_is_noticed(vault: Vault) -> None:
    with pytest.raises(Misconfigured, match="vault key 1 does not open"):
        Vault({1: NEW}, os.urandom).open(vault.seal(Secret("canary"), BINDING), BINDING)


def test_a_key_file_is_read_with_its_comments() -> None:
    text = "# keys of acme\n" + new_key_line(1, os.urandom) + "\n" + new_key_line(2, os.urandom)
    assert sorted(read_keys(text)) == [1, 2]
    assert all(len(key) == 32 for key in read_keys(text).values())


@pytest.mark.parametrize("text", ["nonsense", "x:AAAA", "1:???", "1:AAAA\n1:AAAA"])
def test_a_broken_key_file_is_refused_by_its_line(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"line \d of the key file"):
        read_keys(text)


@pytest.mark.parametrize("keys", [{}, {1: b"short"}, {0: OLD}])
def test_a_vault_without_a_proper_key_does_not_start(keys: dict[int, bytes]) -> None:
    with pytest.raises(Misconfigured):
        Vault(keys, os.urandom)
