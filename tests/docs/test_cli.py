"""docs/reference/cli.md lists every command with its arguments and options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from tests.deploy.commands import every_command
from tests.docs.pages import blocks, documents, page, rows

EVERYWHERE = {"--data-dir", "--json"}
# `up` writes a log; the sandbox is no part of an installation.
NOT_TAKEN = {
    "up": {"--json"},
    "completion": EVERYWHERE,
    "sandbox list": {"--data-dir"},
    "sandbox github": {"--data-dir"},
    "sandbox provider": {"--data-dir"},
}


class Said(NamedTuple):
    arguments: str
    options: frozenset[str]
    required: frozenset[str]


def _listed() -> dict[str, Said]:
    found = {}
    for command, options, _ in rows(page("reference/cli.md")):
        name, arguments = re.fullmatch(r"`([^`]+)` ?(.*)", command).groups()  # type: ignore[union-attr]
        assert name not in found, f"{name} is listed twice"
        words = re.findall(r"`(--[a-z-]+)`(\*?)", options)
        found[name] = Said(
            arguments, frozenset(word for word, _ in words), frozenset(word for word, star in words if star)
        )
    return found


def _real(command: click.Command) -> Said:
    context = click.Context(command)
    # Of a choice, its name, which the help of the command speaks of.
    arguments = [
        (one.name or "").upper() if isinstance(one.type, click.Choice) else one.make_metavar(context)
        for one in command.params
        if isinstance(one, click.Argument)
    ]
    options = {
        word: one.required
        for one in command.params
        if isinstance(one, click.Option)
        for word in (*one.opts, *one.secondary_opts)
        if word not in EVERYWHERE
    }
    return Said(
        " ".join(arguments), frozenset(options), frozenset(word for word, required in options.items() if required)
    )


def test_every_command_is_listed_as_it_is() -> None:
    assert _listed() == {name: _real(command) for name, command in every_command()}


def test_what_every_command_takes_is_taken_by_every_command() -> None:
    for name, command in every_command():
        words = {word for one in command.params for word in one.opts}
        assert words >= EVERYWHERE - NOT_TAKEN.get(name, set()), name


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_a_document_names_only_commands_and_options_there_are(document: Path) -> None:
    commands = {name: _real(command).options | EVERYWHERE for name, command in every_command()}
    groups = {name.partition(" ")[0] for name in commands}
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    for line in [*re.findall(r"`(aswhom [^`]+)`", text), *lines]:
        for words in re.findall(r"(?:^|[ /])aswhom ([a-z][^;|&#]*)", line):
            first, *rest = words.split()
            paths = [" ".join([first, *rest[:length]]) for length in (2, 1, 0)]
            name = next((path for path in paths if path in commands), first)
            assert name in commands or (name in groups and not rest), f"{document.name}: aswhom {words}"
            options = set(re.findall(r"(?<![\w-])--[a-z-]+", words))
            assert options <= commands.get(name, frozenset()) | {"--help"}, f"{document.name}: aswhom {words}"
