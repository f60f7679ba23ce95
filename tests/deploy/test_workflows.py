"""Workflows that are not there, or cannot be used: what is wrong is said in a sentence, and the exit code says it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.installation import Installation
from deploy.settings import load
from pipeline.jobs.new_jobs import NewJob, insert_job
from tests.deploy.conftest import Cli, told
from tests.docs.pages import ROOT

TWICE = """
from dataclasses import replace
from tasks.daily_digest import daily_digest
another = replace(daily_digest)
"""
NOBODY = """
from pipeline.workflow import USER, workflow
from tasks.actions.slack import PostMessage

@workflow(agent="mine", uses={PostMessage: USER})
def mine(run, event): ...
"""
MINE = """
from pipeline.workflow import SERVICE, workflow
from tasks.actions.slack import PostMessage

@workflow(agent="mine", uses={PostMessage: SERVICE})
def mine(run, event): ...
"""
BROKEN = "import a_module_that_nobody_has\n"
CONFIGURED = """
from pydantic import BaseModel
from pipeline.workflow import SERVICE, workflow
from tasks.actions.slack import PostMessage

class Where(BaseModel):
    channel: str

@workflow(agent="mine", uses={PostMessage: SERVICE}, config=Where)
def mine(run, event): ...
"""
UNWRITTEN = "\ndef mine(run, event)\n"
UNNAMED = "import json\n\nmine = json.nothing_of_it\n"
UNSOUND = "class Unsound(Exception): ...\nraise Unsound('as its author says')\n"


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Write a module of workflows, and name it in the settings."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def written(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setenv("ASWHOM_WORKFLOWS", name)
        monkeypatch.setenv("ASWHOM_WORKFLOWS_DIR", str(tmp_path))

    return written


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("of_two_that_are_one", TWICE, "two workflows are named daily_digest"),
        ("of_a_user_unsaid", NOBODY, "of_a_user_unsaid, line 5 (TypeError: workflow mine: slack.PostMessage may run"),
        ("of_what_is_not_installed", BROKEN, "No module named 'a_module_that_nobody_has'"),
        ("of_no_python", UNWRITTEN, "of_no_python (SyntaxError: expected ':' (of_no_python.py, line 2))"),
        ("of_what_is_not_there", UNNAMED, "of_what_is_not_there, line 3 (AttributeError: "),
        ("of_an_error", UNSOUND, "of_an_error, line 2 (Unsound: as its author says)"),
    ],
)
def test_a_module_that_cannot_be_used_is_told_with_its_fault(
    cli: Cli, declare: Callable[[str, str], None], name: str, text: str, says: str
) -> None:
    declare(name, text)
    refused = cli.json("workflows", "list", code=1)
    assert refused["error"] == "Misconfigured"
    assert says in refused["message"]


def test_a_workflow_that_two_modules_have_is_one(
    cli: Cli, declare: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    declare("of_one", MINE)
    declare("of_the_same", "from of_one import mine\nalso = mine\n")
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "of_one,of_the_same")
    assert [row["workflow"] for row in cli.json("workflows", "list")] == ["mine"]
    declare("of_another", MINE)
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "of_one,of_another")
    said = cli.json("workflows", "list", code=1)["message"]
    assert "two workflows are named mine, in of_one and in of_another" in said


def test_a_module_that_declares_nothing_is_told_of(cli: Cli, declare: Callable[[str, str], None]) -> None:
    declare("of_nothing", "from tasks.actions.slack import PostMessage\n")
    assert "of_nothing declares no workflow and no action at its top level" in cli("workflows", "list").stderr


def test_a_file_that_has_the_name_of_a_module_of_ours_is_told_to_be_renamed(
    cli: Cli, declare: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    declare("tasks", MINE)
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "tasks")
    told = cli("workflows", "list").stderr
    assert f"It was loaded from {ROOT / 'tasks' / '__init__.py'}: if you meant a file of yours, rename it" in told


def test_a_module_that_is_nowhere_is_told_with_the_setting_that_names_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "nowhere")
    monkeypatch.setattr(sys, "path", [*sys.path])
    refused = cli.json("workflows", "list", code=1)
    assert refused["error"] == "Misconfigured"
    assert "No module named 'nowhere'" in refused["message"]
    assert "ASWHOM_WORKFLOWS" in refused["message"]


def test_a_workflow_that_nobody_declares_is_not_switched_on(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    refused = cli.json("workflows", "enable", "nobody", "--tenant", "acme", code=1)
    assert refused["error"] == "BadInput"
    assert refused["message"].startswith("no workflow is named 'nobody': known are ")
    assert "link_pull_request" in refused["message"]
    assert not any(row["settings"] for row in cli.json("workflows", "list"))
    assert cli("workflows", "enable", "nobody", "--tenant", "acme").output.startswith("aswhom: no workflow is named")


def test_a_workflow_that_is_on_and_not_installed_is_named_with_its_jobs(
    cli: Cli, declare: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.json("tenants", "add", "acme")
    declare("of_a_folder", MINE)
    cli.json("workflows", "enable", "mine", "--tenant", "acme")
    with Installation(load(data_dir=cli.data_dir)) as at:
        new = NewJob(
            id="job_1", tenant="acme", workflow=at.workflows.get("mine"), triggered_by=None, event={}, config={}
        )
        at.write(lambda c: insert_job(c, new, now=at.now()))
    assert not [one for one in _of_workflows(cli) if "mine" in one and "not installed" in one]
    monkeypatch.delenv("ASWHOM_WORKFLOWS")
    (said,) = [one for one in _of_workflows(cli) if "not installed" in one]
    assert said.startswith("mine is not installed, is on for acme, and 1 job(s) of it wait: ")
    assert "ASWHOM_WORKFLOWS" in said
    (row,) = [row for row in cli.json("workflows", "list") if not row["installed"]]
    assert (row["workflow"], row["enabled_for"]) == ("mine", ["acme"])
    assert said in cli("workflows", "list").stderr
    cli.json("jobs", "cancel", "job_1", "--yes")
    cli.json("workflows", "disable", "mine", "--tenant", "acme")
    assert all(row["installed"] for row in cli.json("workflows", "list"))


def test_a_configuration_that_the_workflows_new_version_refuses_is_found(
    cli: Cli, declare: Callable[[str, str], None]
) -> None:
    cli.json("tenants", "add", "acme")
    declare("of_old", MINE)
    cli.json("workflows", "enable", "mine", "--tenant", "acme")
    assert not told(cli, "configurations")
    declare("of_new", CONFIGURED)
    ((state, says),) = told(cli, "configurations")
    assert state == "wrong"
    assert says == (
        "mine is on for acme, and the tenant's configuration of it no longer fits (channel): "
        "`aswhom workflows enable --config`"
    )
    cli.json("workflows", "disable", "mine", "--tenant", "acme")
    assert not told(cli, "configurations")


def _of_workflows(cli: Cli) -> list[str]:
    """What doctor says of them."""
    return [one["says"] for one in cli.json("doctor", "--offline", code=1)["findings"] if one["what"] == "workflows"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tool:github.Comment:service", "a tool's: the agents' API carries it out"),
        ("link_pull_request.compensation", "undoes what link_pull_request did: a revocation starts it"),
        ("nobody", "no workflow is named 'nobody'"),
    ],
)
def test_what_starts_by_itself_alone_is_neither_switched_on_nor_started(cli: Cli, name: str, says: str) -> None:
    """A tool's job would name a key that asked for nothing, and an undo what no revocation wanted."""
    cli.json("tenants", "add", "acme")
    for command in (("workflows", "enable", name), ("workflows", "start", name)):
        refused = cli.json(*command, "--tenant", "acme", code=1)
        assert says in refused["message"]
