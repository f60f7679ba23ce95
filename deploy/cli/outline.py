"""`python -m deploy.cli.outline`: write `tree.json` anew from the commands themselves."""

from __future__ import annotations

import json
from typing import Any

import click

from deploy.cli import COMMANDS, real
from deploy.cli.tree import FILE


def drawn(command: click.Command) -> dict[str, Any]:
    """A command, or a group with all that is below it, as data."""
    says = command.get_short_help_str(200)
    if isinstance(command, click.Group):
        return {"says": says, "commands": {name: drawn(below) for name, below in command.commands.items()}}
    options = [_option(one) for one in command.params if isinstance(one, click.Option)]
    return {"says": says, "options": options}


def _option(option: click.Option) -> dict[str, Any]:
    names = [f"{option.opts[0]}/{option.secondary_opts[0]}"] if option.secondary_opts else list(option.opts)
    said = {"names": names, "says": option.help, "flag": option.is_flag}
    if isinstance(option.type, click.Choice):
        said["choices"] = list(map(str, option.type.choices))
    return {name: value for name, value in said.items() if value}


def text() -> str:
    """What the file should hold: a command a line."""
    tree = {name: drawn(real(name)) for name in COMMANDS}
    return "{\n" + ",\n".join(f" {json.dumps(name)}: {_lines(of)}" for name, of in tree.items()) + "\n}\n"


def _lines(of: dict[str, Any]) -> str:
    if "commands" not in of:
        return json.dumps(of, ensure_ascii=False)
    below = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(what, ensure_ascii=False)}" for name, what in of["commands"].items()
    )
    return f'{{"says": {json.dumps(of["says"], ensure_ascii=False)}, "commands": {{\n{below}}}}}'


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
