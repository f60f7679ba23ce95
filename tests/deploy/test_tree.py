"""Help and completion of groups come from an outline of the commands, and import nothing that is slow."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from deploy.cli import main, outline, real, tree
from tests.deploy.commands import every_command
from tests.deploy.running import ASWHOM

SLOW = ("sqlalchemy", "pydantic", "httpx", "celery", "flask", "deploy.installation")


def test_the_outline_is_that_of_the_commands() -> None:
    assert tree.FILE.read_text(encoding="utf-8") == outline.text(), "write it anew: python -m deploy.cli.outline"


def test_what_begins_with_a_vowel_has_its_article() -> None:
    wrong = re.findall(r"\ba (?!one|uni|user|use|URL)[aeiouAEIOU]\w*", tree.FILE.read_text(encoding="utf-8"))
    assert wrong == []


@pytest.mark.parametrize("words", ["--help", "jobs --help", "jobs list --help", "revoke --help", "completion bash"])
def test_help_imports_nothing_that_is_slow(words: str) -> None:
    code = f"""
import json, sys
from deploy.cli import main
main({words.split()!r}, standalone_mode=False)
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
    assert sorted(completed("nonsense", "")) == sorted(tree.read())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    done = subprocess.run([ASWHOM, "completion", shell], capture_output=True, text=True, check=True)
    assert "_ASWHOM_COMPLETE" in done.stdout


def test_a_shell_that_asks_is_answered() -> None:
    environment = {"_ASWHOM_COMPLETE": "bash_complete", "COMP_WORDS": "aswhom jobs fa", "COMP_CWORD": "2"}
    done = subprocess.run([ASWHOM], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.splitlines() == ["plain,failures"]


@pytest.mark.parametrize("name", [name for name, _ in every_command()])
def test_help_by_the_outline_is_the_commands_own(name: str) -> None:
    context = click.Context(main, info_name="main", terminal_width=80, **main.context_settings)  # as the runner has it
    command: click.Command = main
    for word in name.split():
        assert isinstance(command, click.Group)
        command = real(word) if command is main else command.commands[word]
        context = click.Context(command, info_name=word, parent=context)
    assert CliRunner().invoke(main, [*name.split(), "--help"]).output.rstrip() == command.get_help(context)


def test_a_command_that_is_called_is_the_real_one() -> None:
    assert CliRunner().invoke(main, ["jobs", "list", "--limit", "0"]).exit_code == 2
    assert CliRunner().invoke(main, ["completion", "nonsense"]).exit_code == 2
