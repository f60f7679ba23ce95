"""The tree of commands as data, so that help and completion of a group need not import what its commands do.

`tree.json` is written by `deploy.cli.outline`; a test compares it with the commands themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click

FILE = Path(__file__).with_name("tree.json")


@cache
def read() -> Mapping[str, Any]:
    """The commands below `aswhom`, by name. A group has `commands`, any other `options`."""
    found: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def outline(name: str, of: Mapping[str, Any]) -> click.Command:
    """A command that knows its options and does nothing: for completion."""
    if "commands" in of:
        below = [outline(child, what) for child, what in of["commands"].items()]
        return click.Group(name, commands=below, help=of["says"])
    return click.Command(name, params=[_option(**one) for one in of["options"]], help=of["says"])


def _option(*, names: list[str], says: str = "", flag: bool = False, choices: list[str] | None = None) -> click.Option:
    return click.Option(names, is_flag=flag, type=click.Choice(choices) if choices else None, help=says)
