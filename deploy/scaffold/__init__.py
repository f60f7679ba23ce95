"""The package that `aswhom new workflow` writes: a workflow, and its test against the sandbox."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from identity.errors import BadInput
from pipeline.authoring.registry import Registry

#: Template → its path below the package's folder.
FILES = {
    "pyproject.toml.in": "pyproject.toml",
    "README.md.in": "README.md",
    "package.py.in": "$name/__init__.py",
    "workflow.py.in": "$name/workflow.py",
    "test_workflow.py.in": "tests/test_workflow.py",
}


def write(name: str, folder: Path, *, workflows: Registry) -> list[Path]:
    """Write a package into *folder*, which must not exist. Return its files.

    Raise BadInput, also if *name* belongs to an installed workflow of *workflows*.
    """
    if len(name) > 40 or not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise BadInput(
            f"{name} cannot be a module's name: take small letters, digits and single underscores, as in triage_bot"
        )
    dashed = name.replace("_", "-")
    if find_spec(name) is not None or _is_installed(dashed):
        raise BadInput(f"there is a module or package {name} already, which would stand in its way: take another name")
    if workflows.find(name) is not None:
        raise BadInput(f"a workflow is named {name} already, and no two may be: take another name")
    if folder.exists():
        raise BadInput(f"{folder} exists: say where else with --directory")
    words = {"name": name, "dashed": dashed, "version": version("aswhom")}
    try:
        return _filled_in(words, folder)
    except OSError as fault:
        raise BadInput(f"{folder} cannot be written ({fault.strerror}): say where else with --directory") from fault


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _filled_in(words: Mapping[str, str], folder: Path) -> list[Path]:
    written = []
    for template, place in FILES.items():
        text = Template(files(__package__).joinpath(template).read_text("utf-8")).substitute(words)
        path = folder / Template(place).substitute(words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
