"""The installation's own secrets, one file each: the vault's keys and the signing seed.

vault    one `id:base64` per line. The highest id seals, all of them open. The environment may hold the keys instead
signing  32 bytes in base64, the Ed25519 seed that signs receipts and the audit. During a rotation, signing.next holds
         its successor
"""

from __future__ import annotations

import binascii
import errno
import os
import secrets
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, TypeVar

from deploy.core_dumps import keep_memory_private
from identity.errors import Misconfigured
from identity.secret import Secret

if TYPE_CHECKING:
    from pipeline.runtime_settings import Keys

T = TypeVar("T")
_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class KeyFiles:
    """Locations of the key files."""

    vault: Path
    signing: Path
    ring: Secret | None = field(default=None, repr=False)  # the vault's keys from the environment, if not in their file

    def read(self) -> Keys:
        """Read the keys. Raise Misconfigured with every fault at once."""
        from identity.keys.vault import read_keys
        from pipeline.runtime_settings import Keys

        faults: list[str] = []

        def attempt(path: Path, parse: Callable[[str], T], otherwise: T) -> T:
            try:
                return parse(_text(path))
            except Misconfigured as fault:
                faults.append(str(fault))
                return otherwise

        keys = Keys(
            vault=attempt(self.vault, read_keys, {}) if self.ring is None else _ring(self.ring, faults),
            signing=attempt(self.signing, _one_key(self.signing), b""),
        )
        if not keys.vault and not faults:
            faults.append(f"{self.vault} holds no key: add one with `aswhom keys add`")
        if faults:
            listed = "".join(f"\n  - {fault}" for fault in faults)
            raise Misconfigured(f"the keys cannot be used:{listed}")
        return keys

    def missing(self) -> list[Path]:
        """Return the files that do not exist."""
        return [path for path in self._paths() if not path.exists()]

    def create(self) -> list[Path]:
        """Create missing files with new keys, and return them. Existing files are never touched."""
        from identity.keys.vault import new_key_line

        made = []
        for path in self.missing():
            text = new_key_line(1, secrets.token_bytes) if path == self.vault else _new_line()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_new(path, text)
            made.append(path)
        return made

    def add_vault_key(self) -> int:
        """Add a vault key, which seals from now on while earlier ones still open. Return its id.

        Raise Misconfigured if the keys are not in a file.
        """
        from identity.keys.vault import new_key_line, read_keys

        text = self._vault_text("add a higher id there: a number, a colon and `openssl rand -base64 32`")
        number = max(read_keys(text), default=0) + 1
        _replace(self.vault, _ended(text) + new_key_line(number, secrets.token_bytes))
        return number

    def retire_vault_key(self, number: int) -> Path:
        """Move a vault key to a file beside the ring, because a backup may still need it. Return that file.

        Raise Misconfigured for the newest key and for an unknown one.
        """
        from identity.keys.vault import read_keys

        text = self._vault_text(f"take id {number} out there")
        keys = read_keys(text)
        if number not in keys:
            known = ", ".join(map(str, sorted(keys)))
            raise Misconfigured(f"{self.vault} has no key {number}: it has {known}")
        if number == max(keys):
            raise Misconfigured(f"key {number} is the newest, which seals: add its successor with `aswhom keys add`")
        lines = text.splitlines(keepends=True)
        (line,) = [line for line in lines if number in read_keys(line)]
        beside = self.vault.with_name(self.vault.name + ".retired")
        kept = _ended(_text(beside)) if beside.exists() else ""
        # Written before the key leaves the ring, so that one file always has it.
        _replace(beside, kept + _ended(line), like=self.vault)
        _replace(self.vault, "".join(other for other in lines if other is not line))
        return beside

    def next_signing_key(self) -> bytes:
        """Return the next signing seed, reusing the one an interrupted rotation left. Raise Misconfigured."""
        beside = self._next_signing
        if not beside.exists():
            _replace(beside, _new_line(), like=self.signing)
        return _one_key(beside)(_text(beside))

    def adopt_signing_key(self) -> None:
        """Replace the signing seed by the next one."""
        self._next_signing.replace(self.signing.resolve())

    def exposed(
        self, *, flags: Callable[[Path], int] = lambda folder: os.statvfs(folder).f_flag
    ) -> list[tuple[Path, bool]]:
        """Return the key folders that others can read, and whether they can also write to them.

        Folders mounted read-only are left out whatever their mode: they are an orchestrator's volumes, which nobody can
        change.
        """
        folders = {path.parent for path in self._paths() if path.parent.exists()}
        folders = {folder for folder in folders if not flags(folder) & os.ST_RDONLY}
        modes = [(folder, folder.stat().st_mode) for folder in sorted(folders)]
        changing = stat.S_IWOTH | stat.S_IWGRP
        return [(folder, bool(mode & changing)) for folder, mode in modes if mode & (stat.S_IRWXO | stat.S_IWGRP)]

    @property
    def _next_signing(self) -> Path:
        real = self.signing.resolve()  # a rename is atomic within one folder
        return real.with_name(real.name + ".next")

    def _vault_text(self, otherwise: str) -> str:
        if self.ring is not None:
            raise Misconfigured(f"the vault's keys are in ASWHOM_VAULT_KEYS, which no command can write: {otherwise}")
        return _text(self.vault)

    def _paths(self) -> list[Path]:
        return [self.signing] if self.ring is not None else [self.vault, self.signing]


def _ring(ring: Secret, faults: list[str]) -> dict[int, bytes]:
    from identity.keys.vault import read_keys

    keep_memory_private()
    try:
        return read_keys(ring.reveal().replace(",", "\n"))
    except Misconfigured as fault:
        faults.append(f"ASWHOM_VAULT_KEYS: {fault}")
        return {}


def _text(path: Path) -> str:
    keep_memory_private()
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise Misconfigured(
            f"there is no key file {path}: copy it from a host of this installation that has it, or restore it from "
            "its backup; a new installation gets it by `aswhom init`"
        ) from None
    except OSError as error:
        raise Misconfigured(f"the key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise Misconfigured(f"{path} is not a key file: it holds more than ASCII") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise Misconfigured(f"everybody on this machine can read {path}: run `chmod 600 '{path}'`")
    if mode & stat.S_IWGRP:
        raise Misconfigured(f"whoever is in the group of {path} can put another key there: run `chmod g-w '{path}'`")
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


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _replace(path: Path, text: str, *, like: Path | None = None) -> None:
    """Replace a file atomically: readers see either the old or the new contents.

    A symbolic link stays one. The new file gets the owner and mode of *like*, or of the old file, so that a command run
    as root does not lock the processes out of their keys. Raise Misconfigured.
    """
    real, owned = path.resolve(), (like or path).stat()
    beside = real.with_name(real.name + ".new")
    try:
        beside.unlink(missing_ok=True)
        _write_exclusively(beside, text)
    except OSError as error:
        raise Misconfigured(
            f"{beside} cannot be written: {error.strerror}. Do this where the keys' folder can be written to, "
            "with ASWHOM_VAULT_KEY_FILE and ASWHOM_SIGNING_KEY_FILE naming copies of them there"
        ) from error
    try:
        os.chown(beside, owned.st_uid, owned.st_gid)
        beside.chmod(stat.S_IMODE(owned.st_mode))
    except PermissionError:
        beside.unlink()
        raise Misconfigured(f"{path} would change hands: run this as root, or as user {owned.st_uid}") from None
    beside.replace(real)


def _write_new(path: Path, text: str) -> None:
    """Create a file completely or not at all. Existing key files are never rewritten, so a partial one would stay."""
    with NamedTemporaryFile("w", encoding="ascii", dir=path.parent, prefix=f".{path.name}.") as file:  # mode 0600
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, path)  # unlike a rename, a link fails if the name is taken
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            _write_exclusively(path, text)  # this file system has no hard links


def _write_exclusively(path: Path, text: str) -> None:
    """Create a private file that must not exist yet, and sync it to disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
