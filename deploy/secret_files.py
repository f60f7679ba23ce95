"""Secret settings that are given as files, as orchestrators mount them: ASWHOM_DATABASE_URL_FILE and its like.

What stands in the environment is seen by whoever may look at the process, and by every child it has.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Those that have such a setting beside them. The vault's keys have a file of their own form.
IN_FILES = ("database_url", "broker_url", "redis_url", "console_client_secret")


@dataclass(frozen=True)
class InFile:
    """Where a setting is, and the setting that says so."""

    path: Path
    named_by: str


def in_file(name: str) -> Callable[[dict[str, Any]], Any]:
    """The default of the setting *name*: what its file holds, if one is named. Reading is the validation's."""

    def default(given: dict[str, Any]) -> InFile | None:
        path = given[f"{name}_file"]
        return None if path is None else InFile(path, f"ASWHOM_{name.upper()}_FILE")

    return default


def text_of(value: object) -> object:
    """What the file holds, without the end of its line, where *value* is one. Raises ValueError."""
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
    if mode & (stat.S_IWGRP | stat.S_IWOTH):  # others may read what orchestrators mount, in a container of its own
        raise ValueError(f"{named} can be written by others, who could put another there: run `chmod go-w` on it")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{named} is empty: write the setting into it")
    if not text.isprintable():
        raise ValueError(f"{named} holds more than one line: write the setting alone into it")
    return text


def given_before(said: dict[str, Any]) -> dict[str, Any]:
    """What is *said* on a command line goes before a file that the environment names for it."""
    return said | {f"{name}_file": None for name in IN_FILES if name in said}


def twice_given(given: Collection[str]) -> Iterator[str]:
    """A fault for each setting that is among those *given* itself and as a file: which one holds is nobody's guess."""
    for name in IN_FILES:
        if name in given and f"{name}_file" in given:
            variable = f"ASWHOM_{name.upper()}"
            yield f"{variable} is given, and so is {variable}_FILE: unset one of the two"
