"""The manners of all commands: exit codes, JSON in every case, and a question before what cannot be undone."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.store import CommitUnknown
from tests.deploy.commands import every_command
from tests.deploy.conftest import Cli

#: What cannot be undone, or reaches further than a line shows.
GRAVE = (
    "revoke", "stop", "retire", "retire-secret", "rotate-webhook-secret", "prune", "narrow", "replay", "remove",
    "delete", "withdraw", "rotate-signing", "sign-out", "renew", "disallow", "resolve", "cancel", "remove-return",
)  # fmt: skip


def test_what_is_grave_asks_or_takes_yes() -> None:
    asks = {name for name, command in every_command() if any("--yes" in one.opts for one in command.params)}
    grave = {name for name, _ in every_command() if name.split()[-1] in GRAVE}
    assert grave <= asks


def test_who_has_no_terminal_must_say_yes(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    asked = cli("tenants", "stop", "acme")
    assert (asked.exit_code, "--yes" in asked.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["tenants", "list"], 0),
        (["tenants", "stop", "nobody", "--yes"], 1),  # not done
        (["doctor", "--offline"], 1),  # a problem was found
        (["tenants", "stop"], 2),  # used wrongly
        (["tenants", "list", "--nonsense"], 2),
        (["nonsense"], 2),
    ],
)
def test_the_exit_code_says_how_it_went(cli: Cli, words: list[str], code: int) -> None:
    assert cli(*words).exit_code == code


def test_what_is_not_done_is_told_in_json_too(cli: Cli) -> None:
    told = cli.json("tenants", "stop", "nobody", "--yes", code=1)
    assert told.keys() == {"error", "message"}
    assert "aswhom tenants list" in told["message"]


def test_with_json_nothing_but_the_document_goes_to_standard_output(cli: Cli) -> None:
    for words in (
        ["tenants", "list"],
        ["keys", "list"],
        ["jobs", "failures"],
        ["db", "upgrade"],
        ["doctor", "--offline"],
    ):
        json.loads(cli(*words, "--json").stdout)


def test_verbs_are_the_same_word_for_the_same_thing() -> None:
    verbs = {name.split()[-1] for name, _ in every_command() if " " in name}
    # What is registered is removed. A tenant is deleted: its credentials are shredded, and its record stays.
    verbs -= {"delete"} & {name.split()[-1] for name, _ in every_command() if name == "tenants delete"}
    synonyms = {"ls", "get", "describe", "delete", "rm", "create", "new", "info", "view", "destroy", "kill"}
    assert not verbs & synonyms


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_is_not_certain_to_be_done_is_not_called_undone(cli: Cli, options: list[str]) -> None:
    cli("init")

    def lost(at: Installation, out: Output) -> None:
        raise CommitUnknown("the commit did not return in time")

    group = click.Group()
    command(group, "lose")(lost)
    told = CliRunner().invoke(group, ["lose", "--data-dir", str(cli.data_dir), *options])
    assert told.exit_code == 1
    assert "it is not certain whether this was done" in told.output
    assert "look before you try again" in told.output
