"""Fixtures of this folder: no settings but the test's own, and logging as it was."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

from deploy.cli import main
from tests.ledgers import TURN


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("ASWHOM_"):
            monkeypatch.delenv(name)
    # One commit of a machine that others use too may take longer than the five seconds of production.
    monkeypatch.setenv("ASWHOM_TURN_TIMEOUT", str(TURN.total_seconds()))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    umask = os.umask(0o022)
    yield
    os.umask(umask)
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    logging.captureWarnings(capture=False)


class Cli:
    """The command line in this process, on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def __call__(self, *arguments: str, input: str | IO[bytes] | None = None) -> Result:
        """Run, and fail on anything that is not an exit."""
        result = CliRunner().invoke(main, [*arguments, "--data-dir", str(self.data_dir)], input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def json(self, *arguments: str, input: str | None = None, code: int = 0) -> Any:
        """Run with `--json`: the document, and the exit code as expected."""
        result = self(*arguments, "--json", input=input)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)


def told(cli: Cli, what: str, *options: str, code: int = 1) -> list[tuple[str, str]]:
    """What it says of one part, and how that is."""
    found = cli.json("doctor", *(options or ("--offline",)), code=code)["findings"]
    return [(one["state"], one["says"]) for one in found if one["what"] == what]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One fresh installation to copy: making it takes longer than most of the tests that need one."""
    made = Cli(tmp_path_factory.mktemp("installed") / "data")
    made.json("init")
    return made.data_dir


@pytest.fixture
def cli(tmp_path: Path, request: pytest.FixtureRequest) -> Cli:
    """On a fresh installation."""
    made = Cli(tmp_path / "a place" / "data")
    shutil.copytree(request.getfixturevalue("installed"), made.data_dir)
    return made
