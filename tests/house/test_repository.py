"""What is committed says nothing about the machine it was made on, and every dependency is pinned by hash."""

import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy import procfile
from identity.model import AccessPattern

ROOT = Path(__file__).parents[2]
LOCKS = ("uv", "base", "hosts", "dev")


def _pins(lock: str) -> dict[str, set[str]]:
    """Name to pinned versions; a name has several where they differ by platform or Python."""
    pins: dict[str, set[str]] = {}
    for entry in _entries(lock):
        requirement = Requirement(entry.split(" --hash", 1)[0])
        pins.setdefault(_canonical(requirement.name), set()).add(str(requirement.specifier).removeprefix("=="))
    return pins


def _entries(lock: str) -> list[str]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text().replace("\\\n", " ")
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_is_exact_and_hashed_and_has_no_address(lock: str) -> None:
    entries = _entries(lock)
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^ ]+( ; .+?)? --hash=sha256:[0-9a-f]{64}", entry), entry
        assert "://" not in entry


def test_the_heading_of_each_release_says_whether_it_changes_tables() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings
    for heading in headings:
        assert re.fullmatch(r"\[(Unreleased\]|[\d.]+\] - \d{4}-\d\d-\d\d) - tables: (change|unchanged)", heading), (
            heading
        )


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    base = [*project["project"]["dependencies"], *extras["embedded"], *extras["sandbox"], *groups["build"]]
    hosts = [*project["project"]["dependencies"], *extras["postgres"], *groups["build"]]
    for lock, asked in (("base", base), ("hosts", hosts), ("dev", [*base, *extras["postgres"], *groups["dev"]])):
        pins = _pins(lock)
        for text in asked:
            requirement = Requirement(text)
            versions = pins.get(_canonical(requirement.name), set())
            assert versions, f"{lock}.txt lacks {requirement.name}: run `make lock`"
            assert all(requirement.specifier.contains(version) for version in versions), (lock, text, versions)


def test_every_dependency_has_a_lowest_and_a_highest_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for text in asked:
        operators = {one.operator for one in Requirement(text).specifier}
        assert operators in ({">=", "<"}, {"=="}), text


def test_no_package_index_takes_it() -> None:
    assert "Private :: Do Not Upload" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]


def test_what_runs_in_production_is_what_was_tested() -> None:
    dev = _pins("dev")
    for lock in ("base", "hosts"):
        assert {name: versions for name, versions in _pins(lock).items() if dev.get(name) != versions} == {}, lock


def test_no_file_names_a_registry_or_a_place_on_somebodys_machine() -> None:
    hosts = (("pypi", "org"), ("pythonhosted", "org"), ("registry", "npmjs", "org"), ("deb", "debian", "org"))
    patterns = [r"\.".join(host) for host in hosts]
    patterns += [rf"(^|[^[:alnum:]_.-])/{folder}/" for folder in ("work", "opt/pypi", "root", "home/[a-z]+")]
    found = subprocess.run(
        ["git", "grep", "-InE", "|".join(patterns), "--", ".", f":!{Path(__file__).relative_to(ROOT)}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stdout, found.stderr) == (1, "", "")


def test_the_wheel_holds_the_packages_and_the_process_list_but_no_tests(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("deploy/Procfile") == (ROOT / "Procfile").read_bytes()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"deploy", "identity", "pipeline", "tasks", "webhooks"}
    assert {f"{top}/py.typed" for top in tops} <= set(names)  # or whoever writes workflows is told nothing by mypy


def test_the_process_list_names_the_five_processes() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["web", "worker", "revocations", "housekeeping", "beat"]


def test_revocations_have_a_worker_of_their_own_and_every_queue_has_one() -> None:
    queues = {
        process.name: process.command[process.command.index("--queues") + 1].split(",")
        for process in procfile.parse((ROOT / "Procfile").read_text())
        if "worker" in process.command
    }
    assert queues.pop("revocations") == ["revocations"]
    assert sorted(queues.pop("worker")) == sorted(AccessPattern)
    assert queues == {}
