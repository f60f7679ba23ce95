"""Two builds of one version can be told apart: by the command, by doctor and by a metric."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY

from deploy import build
from deploy.cli import main
from tests.deploy.conftest import Cli, told


@pytest.fixture
def revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """As the build of an image leaves it."""
    place = tmp_path / "revision.txt"
    place.write_text("1a2b3c4\n")
    monkeypatch.setattr(build.revision, "__defaults__", (place,))
    return "1a2b3c4"


def test_the_command_and_doctor_say_of_which_commit_they_are(cli: Cli, revision: str) -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"aswhom, version {build.version()} ({revision})\n"
    assert any(f"Aswhom {build.version()} ({revision}), " in says for _, says in told(cli, "versions"))


def test_a_process_says_so_to_prometheus(revision: str) -> None:
    build.show()
    labels = {"version": build.version(), "revision": revision}
    assert REGISTRY.get_sample_value("aswhom_build_info", labels) == 1


def test_a_build_that_was_not_told_its_commit_says_the_version_alone() -> None:
    assert build.revision() == ""
    assert CliRunner().invoke(main, ["--version"]).output == f"aswhom, version {build.version()}\n"
