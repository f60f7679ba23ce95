"""Every command of the command line, imported: its words, and itself."""

from __future__ import annotations

from collections.abc import Iterator

import click

from deploy.cli import COMMANDS, real


def every_command() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        yield from _below(name, real(name))


def _below(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    for verb, below in command.commands.items():
        yield from _below(f"{words} {verb}", below)
