"""`new workflow` writes a package outside of this repository, found by its entry point, whose own tests pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import Cli

IN_A_SHELL = "from deploy.cli import main; main()"


@pytest.fixture
def package(cli: Cli, tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere" / "triage-bot"
    written = cli.json("new", "workflow", "triage_bot", "--directory", str(folder))["files"]
    assert str(folder / "triage_bot" / "workflow.py") in written
    return folder


def run(*arguments: str, at: Path, site: Path | None = None) -> str:
    """A command of Python's in a process of its own, with *site* among what is installed; what it prints."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site or ""), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=at, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def site(package: Path, tmp_path: Path) -> Path:
    """Where the package is installed, without a network."""
    folder = tmp_path / "site"
    install = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    run(*install, "--target", str(folder), str(package), at=tmp_path)
    return folder


@pytest.mark.usefixtures("package")
def test_a_new_workflow_is_found_by_its_entry_point(cli: Cli, site: Path, tmp_path: Path) -> None:
    listing = ("-c", IN_A_SHELL, "workflows", "list", "--json", "--data-dir", str(cli.data_dir))
    found = {row["workflow"]: row for row in json.loads(run(*listing, at=tmp_path, site=site))}
    assert found["triage_bot"]["pattern"] == "hybrid"
    assert "link_pull_request" in found


@pytest.mark.slow
def test_a_new_workflows_own_tests_pass_against_the_sandbox(package: Path, site: Path) -> None:
    assert "3 passed" in run("-m", "pytest", "-q", "tests", at=package, site=site)


def said_by_mypy(package: Path, cache: Path) -> str:
    """What it says of a package outside of this repository, by no settings of ours."""
    strict = (sys.executable, "-m", "mypy", "--strict", "--no-color-output", "--cache-dir", str(cache), "triage_bot")
    done = subprocess.run((*strict, "tests"), cwd=package, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_mypy_knows_the_types_that_a_new_workflow_uses(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "mypy"
    assert said_by_mypy(package, cache) == "Success: no issues found in 3 source files\n"
    module = package / "triage_bot" / "workflow.py"
    right = module.read_text(encoding="utf-8")
    wrong = (
        ("repo=event.repo", "repo=event.repository", '"PullRequestEvent" has no attribute "repository"'),
        ("number=event.number", "number=event.repo", 'Argument "number" to "AddLabels" has incompatible type "str"'),
        ("run.config.label", "run.config.colour", '"Config" has no attribute "colour"'),
        ("as_=run.service", 'as_="service"', 'Argument "as_" to "do" of "Run" has incompatible type "str"'),
    )
    text = right
    for said, instead, _ in wrong:
        assert said in right
        text = text.replace(said, instead)
    module.write_text(text, encoding="utf-8")
    told = said_by_mypy(package, cache)
    assert [why for _, _, why in wrong if why not in told] == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Triage", "small letters"),
        ("class", "small letters"),
        ("a__b", "small letters"),
        ("bot_", "small letters"),
        ("a" * 41, "small letters"),
        ("tasks", "stand in its way"),
        ("json", "stand in its way"),
        ("aswhom", "stand in its way"),
        ("daily_digest", "no two may be"),
    ],
)
def test_a_name_that_could_not_be_imported_installed_or_told_apart_is_refused(cli: Cli, name: str, why: str) -> None:
    assert why in cli.json("new", "workflow", name, code=1)["message"]


def test_what_is_there_already_is_not_written_over(cli: Cli, package: Path) -> None:
    again = cli.json("new", "workflow", "triage_bot", "--directory", str(package), code=1)
    assert "exists" in again["message"]
