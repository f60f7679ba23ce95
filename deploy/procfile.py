"""The process list: one `name: command` per line, readable by any process manager and run by `aswhom up`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from identity.errors import Misconfigured

_HERE = Path(__file__).parent
#: Beside this file in an installed package, at the root of a checkout.
_PLACES = (_HERE / "Procfile", _HERE.parent / "Procfile")


@dataclass(frozen=True, kw_only=True)
class Process:
    """A line of the list, or a process run beside it. *environment* is added for this process only."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def numbered(self, number: int) -> Process:
        """Return one of several processes of a kind, `worker-2`, with the number also in its `--hostname`."""
        name = f"{self.name}-{number}"
        renamed = tuple(
            f"{name}{word.removeprefix(self.name)}" if word.startswith(f"{self.name}@") else word
            for word in self.command
        )
        return Process(name=name, command=renamed, environment=self.environment)


def read() -> list[Process]:
    """Return the processes of an installation. Raise Misconfigured."""
    for place in _PLACES:
        if place.is_file():
            return parse(place.read_text(encoding="utf-8"))
    raise Misconfigured(f"there is no process list {_PLACES[0]}: install Aswhom again")


def parse(text: str) -> list[Process]:
    """Return the processes in a Procfile."""
    lines = (line.strip() for line in text.splitlines())
    found = []
    for line in lines:
        if line and not line.startswith("#"):
            name, _, command = line.partition(":")
            found.append(Process(name=name.strip(), command=tuple(shlex.split(command))))
    return found
