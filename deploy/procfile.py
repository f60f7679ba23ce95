"""The process list, `name: command` a line, which any process manager reads and `aswhom up` runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from identity.errors import Misconfigured

_HERE = Path(__file__).parent
#: In an installed package it lies beside this file, in a checkout at the root.
_PLACES = (_HERE / "Procfile", _HERE.parent / "Procfile")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One line of the list, or a process beside it. Words of *environment* are set for it alone."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def numbered(self, number: int) -> Process:
        """One of several of a kind: `worker-2`, in its name and in its `--hostname`."""
        name = f"{self.name}-{number}"
        renamed = tuple(
            f"{name}{word.removeprefix(self.name)}" if word.startswith(f"{self.name}@") else word
            for word in self.command
        )
        return Process(name=name, command=renamed, environment=self.environment)


def read() -> list[Process]:
    """The processes of an installation. Raises Misconfigured."""
    for place in _PLACES:
        if place.is_file():
            return parse(place.read_text(encoding="utf-8"))
    raise Misconfigured(f"there is no process list {_PLACES[0]}: install Aswhom again")


def parse(text: str) -> list[Process]:
    """The processes that a Procfile names."""
    lines = (line.strip() for line in text.splitlines())
    found = []
    for line in lines:
        if line and not line.startswith("#"):
            name, _, command = line.partition(":")
            found.append(Process(name=name.strip(), command=tuple(shlex.split(command))))
    return found
