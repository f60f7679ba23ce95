"""The command tree as data, so that help and completion need not import the commands' dependencies.

`tree.json` is written by `deploy.cli.outline`; a test compares it with the commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click

FILE = Path(__file__).with_name("tree.json")


@cache
def read() -> Mapping[str, Any]:
    """Return the commands below `aswhom` by name. A group has `commands`, any other command has `options`."""
    found: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


class Outlined(click.Command):
    """A command built from its outline, and loaded only when it is called."""

    def __init__(self, name: str, of: Mapping[str, Any], load: Callable[[], click.Command]) -> None:
        super().__init__(name, params=[_option(**one) for one in of["options"]], help=of["help"])
        self._of = of
        self._load = load

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        completes = parent is not None and parent.resilient_parsing
        if completes:
            return super().make_context(info_name, args, parent, **extra)
        if parent is not None and set(args) & set(parent.help_option_names):
            with self.context_class(self, info_name=info_name, parent=parent) as context:
                click.echo(self.get_help(context))
                context.exit()
        return self._load().make_context(info_name, args, parent, **extra)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return list(self._of["usage"])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Options"):
            formatter.write_dl([(left, right) for left, right in self._of["shown"]])


class Shelf(click.Group):
    """A group built from its outline."""

    def __init__(self, name: str, of: Mapping[str, Any], load: Callable[[], click.Command]) -> None:
        super().__init__(name, help=of["help"])
        self._of: Mapping[str, Any] = of["commands"]
        self._load = load

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._of)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return outlined(cmd_name, self._of[cmd_name], lambda: self._below(cmd_name)) if cmd_name in self._of else None

    def _below(self, name: str) -> click.Command:
        group = self._load()
        assert isinstance(group, click.Group)  # noqa: S101 - as its outline says
        return group.commands[name]


def outlined(name: str, of: Mapping[str, Any], load: Callable[[], click.Command]) -> click.Command:
    """Return the command of an outline. *load* imports it."""
    return (Shelf if "commands" in of else Outlined)(name, of, load)


def _option(*, names: list[str], flag: bool = False, choices: list[str] | None = None) -> click.Option:
    return click.Option(names, is_flag=flag, type=click.Choice(choices) if choices else None)
