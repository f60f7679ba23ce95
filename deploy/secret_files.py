"""Secret settings read from files as orchestrators mount them, such as ASWHOM_DATABASE_URL_FILE.

Unlike a file, an environment variable is visible to anyone who may inspect the process, and to all its children.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Settings with a `*_file` variant. The vault's keys have a file format of their own.
IN_FILES = ("database_url", "broker_url", "redis_url", "console_client_secret")


@dataclass(frozen=True)
class InFile:
    """A file that holds a setting, and the variable that names the file."""

    path: Path
    named_by: str


def in_file(name: str) -> Callable[[dict[str, Any]], Any]:
    """Return the default factory of setting *name*: its file, if one is named. Validation reads it."""

    def default(given: dict[str, Any]) -> InFile | None:
        path = given[f"{name}_file"]
        return None if path is None else InFile(path, f"ASWHOM_{name.upper()}_FILE")

    return default


def text_of(value: object) -> object:
    """Return the file's contents without the trailing newline if *value* is an InFile. Raise ValueError."""
    if not isinstance(value, InFile):
        return value
    named = f"the file {value.path}, which {value.named_by} names,"
    try:
        mode = value.path.stat().st_mode
        text = value.path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{named} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{named} is no text in UTF-8") from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):  # others may read it: orchestrators mount it so, in a private container
        raise ValueError(f"{named} can be written by others, who could put another there: run `chmod go-w` on it")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{named} is empty: write the setting into it")
    if not text.isprintable():
        raise ValueError(f"{named} holds more than one line: write the setting alone into it")
    return text


def given_before(said: dict[str, Any]) -> dict[str, Any]:
    """Let settings from the command line override a file that the environment names for them."""
    return said | {f"{name}_file": None for name in IN_FILES if name in said}


def twice_given(given: Collection[str]) -> Iterator[str]:
    """Yield a fault for each setting given both directly and as a file, since neither clearly takes precedence."""
    for name in IN_FILES:
        if name in given and f"{name}_file" in given:
            variable = f"ASWHOM_{name.upper()}"
            yield f"{variable} is given, and so is {variable}_FILE: unset one of the two"
