"""The installation's own secrets, a file each: the vault's keys, the key of the audit's chain, the signing seed.

vault    `id:base64` a line; the highest id seals, every one of them opens
audit    32 bytes in base64
signing  32 bytes in base64: the Ed25519 seed that signs receipts and checkpoints
"""

from __future__ import annotations

import binascii
import os
import secrets
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from identity.errors import Misconfigured

if TYPE_CHECKING:
    from pipeline.runtime import Keys

T = TypeVar("T")
_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class KeyFiles:
    """Where they are."""

    vault: Path
    audit: Path
    signing: Path

    def read(self) -> Keys:
        """The keys themselves. Raises Misconfigured, with every fault at once."""
        from identity.vault import read_keys
        from pipeline.runtime import Keys

        faults: list[str] = []

        def attempt(path: Path, parse: Callable[[str], T], otherwise: T) -> T:
            try:
                return parse(_text(path))
            except Misconfigured as fault:
                faults.append(str(fault))
                return otherwise

        keys = Keys(
            vault=attempt(self.vault, read_keys, {}),
            audit=attempt(self.audit, _one_key(self.audit), b""),
            signing=attempt(self.signing, _one_key(self.signing), b""),
        )
        if not keys.vault and not faults:
            faults.append(f"{self.vault} holds no key: add one with `aswhom keys new`")
        if faults:
            listed = "".join(f"\n  - {fault}" for fault in faults)
            raise Misconfigured(f"the keys cannot be used:{listed}")
        return keys

    def missing(self) -> list[Path]:
        """The files there are not."""
        return [path for path in self._paths() if not path.exists()]

    def create(self) -> list[Path]:
        """Write those that are missing, with new keys; returns them. One that exists is never touched."""
        from identity.vault import new_key_line

        made = []
        for path in self.missing():
            text = new_key_line(1, secrets.token_bytes) if path == self.vault else _new_line()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_new(path, text)
            made.append(path)
        return made

    def add_vault_key(self) -> int:
        """A further vault key, which seals from now on; the earlier ones still open. Returns its id."""
        from identity.vault import new_key_line, read_keys

        text = _text(self.vault)
        number = max(read_keys(text), default=0) + 1
        if text and not text.endswith("\n"):
            text += "\n"
        beside = self.vault.with_name(self.vault.name + ".new")
        beside.unlink(missing_ok=True)
        _write_new(beside, text + new_key_line(number, secrets.token_bytes))
        beside.replace(self.vault)  # whoever reads it meanwhile sees the old file or the new one, whole
        return number

    def _paths(self) -> list[Path]:
        return [getattr(self, field.name) for field in fields(self)]


def _text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise Misconfigured(f"there is no key file {path}: make it with `aswhom init`") from None
    except OSError as error:
        raise Misconfigured(f"the key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise Misconfigured(f"{path} is not a key file: it holds more than ASCII") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise Misconfigured(f"everybody on this machine can read {path}: run `chmod 600 '{path}'`")
    return text


def _one_key(path: Path) -> Callable[[str], bytes]:
    def parse(text: str) -> bytes:
        try:
            key = b64decode(text.strip(), validate=True)
        except binascii.Error:
            raise Misconfigured(f"{path} does not hold base64: restore it from its backup") from None
        if len(key) != _BYTES:
            raise Misconfigured(f"{path} does not hold {_BYTES} bytes in base64: restore it from its backup")
        return key

    return parse


def _new_line() -> str:
    return b64encode(secrets.token_bytes(_BYTES)).decode() + "\n"


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
