"""The demo's commands, run as real `aswhom` processes whose output and exit code are kept.

The operator has the installation. The auditor has only files: a receipt and the public key, in a directory of their
own.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.asking import ADVICE
from identity.errors import Unavailable

Row = dict[str, Any]

_KEY = "key.pem"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command with its exit code and output."""

    words: tuple[str, ...]
    code: int
    printed: str
    complained: str

    def row(self, **said: object) -> Row:
        """Return the command as a table row."""
        return {"command": shlex.join(("aswhom", *self.words)), "exit": self.code, **said}

    @property
    def document(self) -> Row:
        """Return its --json output, or an empty dictionary if that is no document."""
        try:
            printed = json.loads(self.printed)
        except ValueError:
            return {}
        return printed if isinstance(printed, dict) else {}

    def failure(self) -> Unavailable:
        """Return the error to raise for an unexpected result."""
        said = self.complained.strip() or self.document.get("message") or "it said nothing"
        return Unavailable(f"`{self.row()['command']}` ended with {self.code}: {said}. {ADVICE}")


class Commands:
    """Commands on the installation in *directory*. Each must end within the demo's remaining time, *left*."""

    def __init__(self, directory: Path, *, left: Callable[[], float]) -> None:
        self._directory = directory
        self._auditor = directory / "auditor"
        self._left = left

    def revoke(self, kind: str, key: str, *, reason: str) -> tuple[str, Row]:
        """Revoke, and return the revocation's id and the command's row. Raise Unavailable."""
        ran = self._operator("revoke", kind, key, "--reason", reason, "--yes", "--json")
        made: str = ran.document["id"]
        return made, ran.row(says=f"revoked: {made}")

    def publish_key(self) -> None:
        """Give the auditor the public key. Raise Unavailable."""
        self._give(_KEY, self._operator("keys", "public").printed)

    def give_receipt(self, revocation: str) -> tuple[str, Row, Row]:
        """Give the auditor a revocation's current receipt. Return its file name, the receipt, and the command's row.

        Raise Unavailable.
        """
        ran = self._operator("revocations", "show", revocation, "--json")
        name = f"{revocation}.json"
        self._give(name, ran.printed)
        shown = ran.document
        return name, shown["receipt"], ran.row(verified=shown["verified"], revocation=shown["id"])

    def give_altered(self, name: str, alter: Callable[[Row], None]) -> str:
        """Give the auditor an altered copy of the file *name*. Return the copy's name."""
        shown = json.loads((self._auditor / name).read_text(encoding="utf-8"))
        alter(shown["receipt"])
        self._give(f"altered-{name}", json.dumps(shown))
        return f"altered-{name}"

    def verify(self, name: str) -> Row:
        """Return the auditor's verdict on a file. Raise Unavailable if it is neither yes nor no."""
        ran = self._run(("revocations", "verify", name, "--key", _KEY, "--json"), at=self._auditor)
        said = ran.document
        if "verified" not in said:
            raise ran.failure()
        return ran.row(verified=said["verified"], revocation=said["revocation"])

    def _operator(self, *words: str) -> Ran:
        ran = self._run(words, at=self._directory, more=("--data-dir", str(self._directory)))
        if ran.code != 0:
            raise ran.failure()
        return ran

    def _run(self, words: tuple[str, ...], *, at: Path, more: tuple[str, ...] = ()) -> Ran:
        program = str(Path(sysconfig.get_path("scripts")) / "aswhom")
        try:
            ended = subprocess.run(
                [program, *words, *more], cwd=at, capture_output=True, text=True, timeout=self._left(), check=False
            )
        except subprocess.TimeoutExpired:
            said = shlex.join(("aswhom", *words))
            raise Unavailable(f"the demo's time was over before `{said}` had ended. {ADVICE}") from None
        return Ran(words=words, code=ended.returncode, printed=ended.stdout, complained=ended.stderr)

    def _give(self, name: str, text: str) -> None:
        self._auditor.mkdir(mode=0o700, exist_ok=True)
        (self._auditor / name).write_text(text, encoding="utf-8")
