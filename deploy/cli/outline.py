"""`python -m deploy.cli.outline`: regenerates `tree.json` from the commands."""

from __future__ import annotations

import json
from typing import Any

import click

from deploy.cli import COMMANDS, main, real
from deploy.cli.tree import FILE


def drawn(name: str, command: click.Command) -> dict[str, Any]:
    """Return a command as data, and a group with everything below it."""
    if isinstance(command, click.Group):
        below = {verb: drawn(verb, one) for verb, one in sorted(command.commands.items())}
        return {"help": command.help, "commands": below}
    context = click.Context(command, info_name=name, parent=click.Context(main, **main.context_settings))
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    records = [one.get_help_record(context) for one in options]
    return {
        "help": command.help,
        "usage": command.collect_usage_pieces(context),
        "shown": [record for record in records if record is not None],
        "options": [_option(one) for one in options if one in command.params],
    }


def _option(option: click.Option) -> dict[str, Any]:
    names = [f"{option.opts[0]}/{option.secondary_opts[0]}"] if option.secondary_opts else list(option.opts)
    said: dict[str, Any] = {"names": names}
    if option.is_flag:
        said["flag"] = True
    if isinstance(option.type, click.Choice):
        said["choices"] = list(map(str, option.type.choices))
    return said


def text() -> str:
    """Return the file's contents, one command a line."""
    return "{\n" + ",\n".join(f" {_said(name)}: {_lines(drawn(name, real(name)))}" for name in COMMANDS) + "\n}\n"


def _lines(of: dict[str, Any]) -> str:
    if "commands" not in of:
        return _said(of)
    below = ",\n".join(f"  {_said(name)}: {_said(what)}" for name, what in of["commands"].items())
    return f'{{"help": {_said(of["help"])}, "commands": {{\n{below}}}}}'


def _said(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
