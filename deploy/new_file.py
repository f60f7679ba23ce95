"""A file that is there as a whole or not at all, and never in the place of another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from identity.errors import BadInput


@contextmanager
def whole(output: Path, part: str) -> Iterator[Path]:
    """An empty file beside *output*, for its owner alone, that takes its name once all is written.

    It goes if that is not. Raises BadInput, where *output* is there too: what a run that failed would have taken the
    place of may be the last good one.
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
        with suppress(OSError):  # whatever kept it from being written may keep it from being looked for
            written.unlink()


def _refuse_old(output: Path) -> None:
    if output.exists():
        raise BadInput(f"{output} exists: name a new file")


def _flush(path: Path) -> None:
    """A loss of power after the command's answer must not leave the name of a file without what is in it."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
