"""A package of one's own with a workflow in it, and its test against the sandbox: what `aswhom new workflow` writes."""

from __future__ import annotations

import keyword
import re
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from identity.errors import BadInput

#: Template → where it goes, below the package's folder.
FILES = {
    "pyproject.toml.in": "pyproject.toml",
    "README.md.in": "README.md",
    "package.py.in": "$name/__init__.py",
    "workflow.py.in": "$name/workflow.py",
    "test_workflow.py.in": "tests/test_workflow.py",
}


def write(name: str, folder: Path) -> list[Path]:
    """Write the package of that name into *folder*, which must not exist; returns its files. Raises BadInput."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise BadInput(
            f"{name} cannot be a module's name: take small letters, digits and underscores, as in triage_bot"
        )
    if find_spec(name) is not None:
        raise BadInput(f"there is a module {name} already, which Python would import instead: take another name")
    if folder.exists():
        raise BadInput(f"{folder} exists: say where else with --directory")
    words = {"name": name, "dashed": name.replace("_", "-"), "version": version("aswhom")}
    written = []
    for template, place in FILES.items():
        text = Template(files(__package__).joinpath(template).read_text("utf-8")).substitute(words)
        path = folder / Template(place).substitute(words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
