"""Atomic creation of a new file, which never replaces an existing one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from identity.errors import BadInput


@contextmanager
def whole(output: Path, part: str) -> Iterator[Path]:
    """Yield an empty private file beside *output* that is renamed to it once it is completely written.

    On failure the file is removed. Raise BadInput, also if *output* exists: a failed run must not replace the last good
    file.
    """
    _refuse_old(output)
    written = output.with_name(f".{output.name}.{part}")
    try:
        written.touch(mode=0o600, exist_ok=False)
        yield written
        _flush(written)
        _refuse_old(output)
        written.rename(output)
        _flush(output.absolute().parent)
    except OSError as error:
        raise BadInput(f"{output} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):  # the same fault may prevent this too
            written.unlink()


def refuse_unwritable(output: Path) -> None:
    """Raise BadInput if `whole` could not create *output*, for a caller that has hours of work ahead of it."""
    _refuse_old(output)
    if not os.access(output.absolute().parent, os.W_OK | os.X_OK):
        raise BadInput(f"{output} cannot be written: its directory is missing, or not writable by this user")


def _refuse_old(output: Path) -> None:
    if output.exists():
        raise BadInput(f"{output} exists: name a new file")


def _flush(path: Path) -> None:
    """Sync to disk: a power failure after the command's answer must not leave a file name without its contents."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
