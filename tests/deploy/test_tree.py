"""Help and completion of groups come from an outline of the commands, and import nothing that is slow."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import click
import pytest
from click.shell_completion import BashComplete

from deploy.cli import Shelf, main, outline, real, tree
from tests.deploy.running import ASWHOM

SLOW = ("sqlalchemy", "pydantic", "httpx", "celery", "flask", "deploy.installation")


def test_the_outline_is_that_of_the_commands() -> None:
    assert tree.FILE.read_text(encoding="utf-8") == outline.text(), "write it anew: python -m deploy.cli.outline"


@pytest.mark.parametrize("words", [["--help"], ["jobs", "--help"], ["connections", "--help"], ["completion", "bash"]])
def test_help_imports_nothing_that_is_slow(words: list[str]) -> None:
    code = f"""
import json, sys
from deploy.cli import main
main({words!r}, standalone_mode=False)
print(json.dumps([name for name in {SLOW!r} if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def completed(*words: str) -> list[str]:
    *before, last = words
    return [item.value for item in BashComplete(main, {}, "aswhom", "").get_completions(list(before), last)]


def test_commands_options_and_values_are_completed() -> None:
    assert completed("jo") == ["jobs"]
    assert completed("jobs", "re") == ["replay", "resolve"]
    assert completed("jobs", "list", "--st") == ["--state"]
    assert completed("jobs", "list", "--state", "d") == ["done", "dead"]
    assert completed("jobs", "resolve", "--no") == ["--no-effect"]
    assert completed("nonsense", "") == list(tree.read())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    done = subprocess.run([ASWHOM, "completion", shell], capture_output=True, text=True, check=True)
    assert "_ASWHOM_COMPLETE" in done.stdout


def test_a_shell_that_asks_is_answered() -> None:
    environment = {"_ASWHOM_COMPLETE": "bash_complete", "COMP_WORDS": "aswhom jobs fa", "COMP_CWORD": "2"}
    done = subprocess.run([ASWHOM], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.splitlines() == ["plain,failures"]


def test_a_group_by_its_outline_has_the_same_commands() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        shelf = main.get_command(context, name)
        if isinstance(shelf, Shelf):
            group: Any = real(name)
            assert shelf.list_commands(context) == list(group.commands), name
            assert all(shelf.get_command(context, child) is group.commands[child] for child in group.commands)
    assert json.loads(tree.FILE.read_text(encoding="utf-8")).keys() == set(main.list_commands(context))
