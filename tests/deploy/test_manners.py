"""The manners of all commands: exit codes, JSON in every case, and a question before what cannot be undone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import deploy
from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.sql.store import CommitUnknown
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


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as there:
        there.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
def test_a_time_is_said_by_the_clock_on_the_wall_with_its_zone(capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2026, 11, 30, 13, 2, 3, 123456, tzinfo=UTC)
    assert local_time(moment) == "2026-11-30 14:02:03+01:00"
    Output(as_json=False).rows([{"id": "job-1", "created_at": moment}], ("id", "created_at"), empty="")
    assert "2026-11-30 14:02:03+01:00" in capsys.readouterr().out


#: What is in a schedule's own zone, and a file's name.
OTHER_TIMES = {("schedules.py", "%a %Y-%m-%d %H:%M %Z"), ("audit.py", "%Y-%m-%dT%H%M%S")}


def test_no_command_has_a_way_of_its_own_to_say_a_time() -> None:
    written = {
        (path.name, found)
        for folder in ("cli", "checkup")
        for path in (Path(deploy.__file__).parent / folder).glob("*.py")
        for found in re.findall(r"%[a-zA-Z][-:%a-zA-Z ]*%[a-zA-Z]", path.read_text(encoding="utf-8"))
    }
    assert written == OTHER_TIMES
